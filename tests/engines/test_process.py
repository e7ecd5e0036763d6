"""The pieces of an engine process that need no vLLM: its environment, its command line, its log, its weights."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config, Model
from cappella.engines import process, vllm, weights
from cappella.engines.process import EngineProcess
from cappella.engines.supervisor import Supervisor, require_memory
from cappella.errors import ConfigError
from choir import eventually


def model(**fields: Any) -> Model:
    return Model.model_validate({"weights": "/w", "max_model_len": 64, "kv_cache_bytes": "1MiB", **fields})


def pairs(**fields: Any) -> dict[str, str]:
    flags = process.command("ann", model(**fields), Path("/run/engine.sock"))[3:]
    return {
        flag: following if not following.startswith("--") else ""
        for flag, following in zip(flags, [*flags[1:], "--"], strict=True)
        if flag.startswith("--")
    }


@pytest.mark.parametrize(
    "name",
    "HTTP_PROXY https_proxy ALL_PROXY PYTHONPATH PYTHONSTARTUP HF_TOKEN HUGGING_FACE_HUB_TOKEN VLLM_PLUGINS"
    " VLLM_ALLOW_INSECURE_SERIALIZATION OTEL_TRACES_EXPORTER WANDB_API_KEY".split(),
)
def test_what_could_open_the_seal_is_not_inherited(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "leak")
    assert process.environment(threads=1).get(name) != "leak"


@pytest.mark.parametrize("name", sorted(process.SEAL))
def test_the_operators_shell_cannot_unset_the_seal(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0.0.0.0")
    assert process.environment(threads=None)[name] == process.SEAL[name]


def test_what_is_harmless_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert process.environment(threads=None)["CUDA_VISIBLE_DEVICES"] == "1"


def test_the_client_drops_an_idle_connection_long_before_the_server_does() -> None:
    server_s = float(process.environment(threads=None)["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"])
    assert server_s >= 10 * vllm.KEEP_ALIVE_S


def test_the_server_listens_on_a_socket_and_on_no_port() -> None:
    flags = pairs()
    assert flags["--uds"] == "/run/engine.sock"
    assert not {"--host", "--port", "--trust-remote-code", "--api-key"} & set(flags)
    assert (flags["--served-model-name"], flags["--model"], flags["--max-model-len"]) == ("ann", "/w", "64")


def test_switches_and_mappings_become_flags_as_vllm_reads_them() -> None:
    flags = pairs(enforce_eager=True, engine_args={"a_b": True, "c": False, "d": {"x": 1}, "e-f": 2.5})
    assert flags["--enforce-eager"] == ""
    assert flags["--a-b"] == ""
    assert "--c" not in flags
    assert json.loads(flags["--d"]) == {"x": 1}
    assert flags["--e-f"] == "2.5"


async def test_a_log_tells_the_stage_and_the_cause_of_death(tmp_path: Path) -> None:
    words = "\n".join(mark for mark, _, _ in process.STAGES[:3])
    script = f"print({words!r}, flush=True); raise SystemExit('ValueError: no such head size')"
    log = tmp_path / "logs" / "ann.log"
    folder = tmp_path / "run" / "ann"
    started = await EngineProcess.start([sys.executable, "-c", script], folder, dict(os.environ), log)
    assert await eventually(lambda: not started.running, 20)
    await started.wait()
    assert started.stage() == process.STAGES[2][1:]
    assert started.reason() == "ValueError: no such head size"
    assert not folder.exists()
    assert not folder.parent.exists()


async def test_an_earlier_log_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "ann.log"
    for text in ("first", "second"):
        command = [sys.executable, "-c", f"print({text!r})"]
        started = await EngineProcess.start(command, tmp_path / "run" / "ann", dict(os.environ), log)
        await asyncio.wait_for(started.wait(), 20)
    assert log.read_text().startswith("second")
    assert (tmp_path / "ann.previous.log").read_text().startswith("first")


def test_a_silent_death_is_told_as_such(tmp_path: Path) -> None:
    log = tmp_path / "ann.log"
    log.write_text("keeper: the engine process ended with exit code 3\n\n")
    assert "printed nothing" in EngineProcess(None, log).reason()  # type: ignore[arg-type]


def folder_of(path: Path, config: Any = None, tokenizer: Any = None) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({} if config is None else config))
    (path / "tokenizer.json").write_text(json.dumps({} if tokenizer is None else tokenizer))
    (path / "model-1.safetensors").write_bytes(b"0" * 1000)
    (path / "model-2.safetensors").write_bytes(b"0" * 24)
    return path


def test_weights_are_the_sum_of_their_parts_and_only_special_tokens_count(tmp_path: Path) -> None:
    added = [{"content": "<|end|>", "special": True}, {"content": "word", "special": False}, {"content": "plain"}]
    found = weights.inspect("ann", folder_of(tmp_path / "w", {"max_position_embeddings": 9}, {"added_tokens": added}))
    assert found == weights.Weights(1024, 9, ("<|end|>",))


@pytest.mark.parametrize("config", [[], 7, None])
def test_a_config_json_of_another_shape_is_named(tmp_path: Path, config: Any) -> None:
    folder = folder_of(tmp_path / "w")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"models\.ann\.weights.*config\.json holds no JSON object"):
        weights.inspect("ann", folder)


def test_a_pickle_beside_safetensors_is_left_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "w")
    (folder / "training_args.bin").write_bytes(b"x")
    assert weights.inspect("ann", folder).weight_bytes == 1024


def deployment(folder: Path, kv_cache_bytes: str = "1MiB") -> Config:
    weights_folder = folder_of(folder / "w")
    entry = {"weights": str(weights_folder), "max_model_len": 64, "kv_cache_bytes": kv_cache_bytes}
    ensemble = {"panel": ["ann"], "judge": "bob"}
    return Config.model_validate({"models": {"ann": entry, "bob": entry}, "ensembles": {"default": ensemble}})


def test_memory_is_added_up_over_all_engines(tmp_path: Path) -> None:
    config = deployment(tmp_path, "1GiB")
    require_memory(config, 6 << 30)
    with pytest.raises(ConfigError, match=r"need 5\.8 GiB \(ann 2\.9, bob 2\.9\) and 5\.0 GiB is free"):
        require_memory(config, 5 << 30)


async def test_a_supervisor_that_never_started_leaves_nothing_behind(tmp_path: Path) -> None:
    supervisor = Supervisor(deployment(tmp_path), tmp_path / "logs")
    folder = supervisor._runtime_dir
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(supervisor.statuses) == ["ann", "bob"]
    assert {status.state for status in supervisor.statuses.values()} == {"waiting"}
    await supervisor.stop()
    assert not folder.exists()


def test_sockets_fit_into_the_address_of_a_unix_socket(tmp_path: Path) -> None:
    supervisor = Supervisor(deployment(tmp_path), tmp_path / "logs")
    try:
        longest = supervisor._runtime_dir / ("x" * 64) / "engine.sock"
        assert len(str(longest).encode()) < 108
    finally:
        supervisor._runtime_dir.rmdir()
