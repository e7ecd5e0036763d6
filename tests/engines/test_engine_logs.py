"""An engine's log: who may read it, how large it grows, and that it quotes no request."""

import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cappella.engines import log_rotation
from cappella.engines.vllm import server_args
from cappella.engines.vllm.log_filter import WithoutRequests
from support.real_deployment import ROOT
from support.stub_engine import fork_server

SECRET = "SECRET-OF-ANN"


@pytest.fixture
def written() -> Iterator[list[str]]:
    """What a handler with the filter writes of every record of every logger here."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, root = Lines(), logging.getLogger()
    handler.addFilter(WithoutRequests())
    root.addHandler(handler)
    yield lines
    root.removeHandler(handler)


def fail(error: Exception) -> None:
    raise error


async def test_only_the_owner_reads_a_log_also_where_the_file_was_there_before(tmp_path: Path) -> None:
    os.umask(0o022)
    forks = fork_server(tmp_path / "modules", "def main(): print('hello', flush=True)")
    (tmp_path / "modules" / "fork-server.log").write_text("of an earlier start")
    (tmp_path / "modules" / "fork-server.log").chmod(0o644)
    started = await forks.launch([], tmp_path / "run" / "ann", tmp_path / "ann.log")
    await started.wait(20)
    await forks.close()
    for log in (tmp_path / "ann.log", tmp_path / "modules" / "fork-server.log"):
        assert stat.S_IMODE(log.stat().st_mode) == 0o600, log


async def test_a_log_that_grows_too_large_is_cut_while_the_engine_writes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_rotation.shorten, "__defaults__", (1000,))
    source = (
        "import time\n"
        "def main():\n"
        "    for number in range(200): print(f'line {number:06}', flush=True)\n"
        "    print('written', flush=True)\n"
        f"    while not __import__('os').path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        "    print('the end', flush=True)\n"
    )
    forks = fork_server(tmp_path / "modules", source)
    started = await forks.launch([], tmp_path / "run" / "ann", tmp_path / "ann.log")
    while "written" not in started.log.read_text():
        await started.wait(0.05)
    await started.shorten_log()
    assert started.log.stat().st_size <= 500
    (tmp_path / "go").touch()
    await started.wait(20)
    await forks.close()
    lines = started.log.read_text().splitlines()
    assert lines[0].startswith("line ")
    assert "\0" not in started.log.read_text()
    assert [line for line in lines if not line.startswith("line")][:2] == ["written", "the end"]


def test_a_record_of_code_that_sees_requests_keeps_what_stands_in_the_code(written: list[str]) -> None:
    log = logging.getLogger("vllm.v1.structured_output.backend_guidance")
    log.warning("LLMatcher error: %s", SECRET)
    log.error("Broken in two: %s and %d", SECRET, 7)
    log.error(f"Composed of {SECRET}")
    log.error(ValueError(SECRET))
    assert written[:2] == ["LLMatcher error: %s", "Broken in two: %s and %d"]
    assert len(written) == 4
    assert SECRET not in "".join(written)


def test_an_exception_of_a_request_keeps_its_class_and_place(written: list[str]) -> None:
    for name in ("vllm.entrypoints.openai.chat_completion.serving", "asyncio", "somebody.else"):
        try:
            fail(RuntimeError(SECRET))
        except RuntimeError:
            logging.getLogger(name).exception("Error in chat completion stream generator.")
    assert all(
        line.startswith("Error in chat completion stream generator. [RuntimeError at test_engine_logs.py:")
        for line in written
    )
    assert len(written) == 3
    assert SECRET not in "".join(written)


def test_what_an_engine_dies_of_stays_whole(written: list[str]) -> None:
    log = logging.getLogger("vllm.v1.engine.core")
    for error, message in (
        (RuntimeError("CUDA error: out of memory"), "EngineCore encountered a fatal error."),
        (ValueError("the KV cache is too small"), "EngineCore failed to start."),
        (ValueError(SECRET), "Unexpected error pre-processing request x"),
    ):
        try:
            fail(error)
        except (RuntimeError, ValueError):
            log.exception(message)
    assert "RuntimeError: CUDA error: out of memory" in written[0]
    assert "ValueError: the KV cache is too small" in written[1]
    assert (SECRET in written[2], "[ValueError at test_engine_logs.py:" in written[2]) == (False, True)


@pytest.mark.vllm
def test_real_loggers_of_vllm_and_uvicorn_pass_the_filter() -> None:
    code = f"""
import argparse, logging, uvicorn
import vllm.logger
from vllm.entrypoints.launchers.utils.server_utils import get_uvicorn_log_config
args = argparse.Namespace(disable_access_log_for_endpoints=None)
vllm.logger.configure_logging_from_args(args)
uvicorn.Config(None, log_config=get_uvicorn_log_config(args))
def fail(): raise ValueError("{SECRET}")
for name in ("vllm.renderers.hf", "vllm.tool_parsers.hermes", "uvicorn.error", "transformers_modules.x", "asyncio"):
    log = logging.getLogger(name)
    log.warning("A value: %s", "{SECRET}")
    try: fail()
    except ValueError: log.exception("It failed.")
vllm.logger.init_logger("vllm.engine.arg_utils").info("non-default args: %s", "kept")
"""
    env = server_args.environment(threads=1)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert SECRET not in output
    assert "non-default args: kept" in output
    assert output.count("a message that is left out") == 10


def test_the_logging_config_is_part_of_the_package() -> None:
    config = Path(server_args.QUIET["VLLM_LOGGING_CONFIG_PATH"])
    assert json.loads(config.read_text())["version"] == 1
    assert str(config.relative_to(ROOT / "runtime" / "cappella")) in (ROOT / "pyproject.toml").read_text()
