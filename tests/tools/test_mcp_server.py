"""MCP servers that Cappella starts, over real processes."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cappella.config import CommandTool
from cappella.sealing import guard
from cappella.tools.base import STARTING, Passage
from cappella.tools.mcp import process, server, stdio
from cappella.tools.mcp.server import from_command
from cappella.types import Json
from support import mcp_sdk_server
from support.tool_server import running, serves, until

needs_namespaces = pytest.mark.skipif(
    subprocess.run(["unshare", "-Urn", "true"], check=False, capture_output=True).returncode != 0,
    reason="this kernel gives no namespaces",
)


async def test_a_tool_is_listed_with_its_schema_and_called(tmp_path: Path) -> None:
    async with running(tmp_path) as small:
        echo = small.tools[0]
        result = await small.call("echo", {"text": "Hello."})
    assert (echo.server, echo.name, echo.description) == ("small", "echo", "Say it again.")
    assert echo.parameters["required"] == ["text"]
    assert (result.text, result.is_error) == ("Hello.", False)


async def test_details_count_prompts_and_resources(tmp_path: Path) -> None:
    async with running(tmp_path) as small:
        await until(lambda: (small.details.prompts, small.details.resources) == (1, 2))


async def test_arguments_that_do_not_fit_the_schema_are_told_and_not_sent(tmp_path: Path) -> None:
    async with running(tmp_path) as small:
        missing = await small.call("echo", {})
        wrong = await small.call("echo", {"text": 5})
    assert missing.is_error
    assert "text" in missing.text
    assert wrong.is_error
    assert 'arguments["text"]' in wrong.text


async def test_a_tool_that_is_not_there_is_an_error_with_the_names_of_those_that_are(tmp_path: Path) -> None:
    async with running(tmp_path) as small:
        result = await small.call("ekko", {})
    assert result.is_error
    assert "echo" in result.text


async def test_a_result_has_passages_and_names_what_no_model_can_read(tmp_path: Path) -> None:
    async with running(tmp_path) as small:
        mixed = await small.call("mixed", {})
        structured = await small.call("structured", {})
    assert mixed.passages == (Passage("small", "file:///notes.txt", "", "Gonil lives in room 7."),)
    assert "image/png" in mixed.text
    assert mixed.text.endswith("Done.")
    assert json.loads(structured.text) == {"sum": 3}


async def test_a_large_result_is_cut_between_characters_with_a_mark(tmp_path: Path) -> None:
    async with running(tmp_path, max_result_bytes=1001) as small:
        result = await small.call("big", {})
    kept, mark = result.text.split("\n")
    assert kept == "é" * 500
    assert "400000" in mark


async def test_a_call_that_hangs_is_given_up_and_its_server_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, timeout_s=1.0) as small:
        session = sys.modules["cappella.tools.mcp.session"]
        monkeypatch.setattr(session, "PING_TIMEOUT_S", 0.2)
        result = await small.call("hang", {})
        assert result.is_error
        assert "1 s" in result.text
        await until(lambda: small.problem is not None)
        await serves(small)
        assert (await small.call("echo", {"text": "Again."})).text == "Again."


async def test_a_server_that_crashes_is_begun_again_and_its_problem_has_the_reason(tmp_path: Path) -> None:
    async with running(tmp_path, delays_s=(0.3,)) as small:
        result = await small.call("crash", {})
        assert result.is_error
        await until(lambda: small.problem is not None)
        assert "the reason of the crash" in str(small.problem)
        assert not small.tools
        assert (await small.call("echo", {"text": "Hello."})).is_error
        await serves(small)
        assert [tool.name for tool in small.tools][:1] == ["echo"]


async def test_the_last_words_of_a_server_that_was_called_stand_in_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, delays_s=(0.3,)) as small:
        await small.call("crash", {})
        await until(lambda: small.problem is not None)
    assert "the reason of the crash" not in caplog.text
    assert "its own log may say why" in caplog.text


async def test_a_crash_loop_waits_longer_each_time(tmp_path: Path) -> None:
    seen: list[str] = []
    async with running(tmp_path, "ends", delays_s=(0.01, 0.02, 0.03)) as small:
        while not seen or "0.03" not in seen[-1]:
            if small.problem and small.problem not in seen:
                seen.append(small.problem)
            await asyncio.sleep(0.001)
    assert all("no settings found" in problem for problem in seen)
    assert server.DELAYS_S[-1] == 30.0


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = from_command("small", CommandTool(command=("no-such-program",)), tmp_path)
    await missing.start()
    await until(lambda: missing.problem != STARTING)
    problem = str(missing.problem)
    await missing.stop()
    assert "no-such-program" in problem


async def test_tools_that_lie_are_left_out_and_told(tmp_path: Path) -> None:
    async with running(tmp_path, "lying") as small:
        assert [tool.name for tool in small.tools] == ["echo", "a_b_c"]
        assert (await small.call("echo", {"text": "Hello."})).text == "Hello."
        notes = "\n".join(small.details.notes)
    for name in ("no_object", "broken", "afar", "long", "'a b.c'"):
        assert name in notes


async def test_tools_that_change_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RELIST_DELAY_S", 0.0)
    async with running(tmp_path) as small:
        await small.call("change", {})
        await until(lambda: any(tool.name == "added" for tool in small.tools))


async def test_what_a_server_asks_of_models_files_and_people_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as small:
        result = await small.call("ask_back", {})
    assert result.text.count("refused") == 3


@pytest.mark.parametrize("way", ["giant", "flood"])
async def test_a_server_that_writes_without_end_is_cut_off(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdio, "MAX_MESSAGE_BYTES", 1 << 20)
    async with running(tmp_path, way, delays_s=(60.0,)) as small:
        if way == "flood":
            assert (await small.call("flood", {})).is_error
        await until(lambda: small.problem is not None)
        assert ("1 MiB" if way == "giant" else "answer nothing") in str(small.problem)


async def test_a_line_that_is_no_message_is_ignored(tmp_path: Path) -> None:
    async with running(tmp_path, "prints") as small:
        assert small.problem is None


async def test_a_server_gets_few_variables_and_those_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPPELLA_KEY", "secret")
    async with running(tmp_path, env={"TOKEN": "own"}) as small:
        result = await small.call("environment", {})
    seen = json.loads(result.text)
    assert seen["TOKEN"] == "own"
    assert "secret" not in result.text


@needs_namespaces
async def test_a_server_reaches_nothing_and_sees_only_its_own_processes(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with running(tmp_path) as small:
            away = await small.call("connect", {})
            here = await small.call("connect", {"host": "127.0.0.1", "port": port})
            parent, _ = (await small.call("ids", {})).text.split()
            assert small.details.confined_by == process.NETWORK
    assert away.text.startswith("refused")
    assert here.text.startswith("refused")
    assert parent == "1"


@needs_namespaces
async def test_where_the_kernel_gives_no_namespaces_the_guard_refuses_and_it_is_told(tmp_path: Path) -> None:
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    holder = await _holder(tmp_path, "unshare", "-Ur", "sh", "-c", script, "-")
    try:
        told = await _told(holder)
    finally:
        holder.kill()
        await holder.wait()
    assert "no namespaces" in told["notes"][0]
    assert "sealed" in told["away"]
    await until(lambda: not _marked(tmp_path))


async def test_in_a_trial_of_the_stack_what_a_server_tries_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "refused.jsonl"
    monkeypatch.setenv(guard.RECORD, str(record))
    async with running(tmp_path, "connects") as small:
        assert small.details.confined_by == process.GUARDED
    assert "192.0.2.77:443" in record.read_text()


async def test_an_address_of_may_reach_is_allowed_and_others_are_not(tmp_path: Path) -> None:
    async with running(tmp_path, may_reach=("192.0.2.1",)) as small:
        other = await small.call("connect", {"host": "192.0.2.2"})
        own = await small.call("connect", {"host": "192.0.2.1"})
        assert small.details.confined_by == process.GUARDED
    assert "sealed" in other.text
    assert "sealed" not in own.text


async def test_a_server_of_the_sdk_is_called_without_a_network(tmp_path: Path) -> None:
    made = from_command("made", CommandTool(command=(sys.executable, mcp_sdk_server.__file__, "stdio")), tmp_path)
    await made.start()
    try:
        await serves(made)
        assert (await made.call("add", {"a": 2, "b": 3})).text == "5"
    finally:
        await made.stop()


async def test_a_server_ends_with_its_guardian_and_is_begun_again(tmp_path: Path) -> None:
    async with running(tmp_path, env={"MARK": str(tmp_path)}) as small:
        await small.call("children", {})
        before = set(_marked(tmp_path))
        for guardian in _guardians():
            os.kill(guardian, signal.SIGKILL)
        await until(lambda: small.problem is not None)
        await serves(small)
        await until(lambda: not before & set(_marked(tmp_path)))


async def test_no_process_is_left_of_a_server_that_left_its_session(tmp_path: Path) -> None:
    async with running(tmp_path, env={"MARK": str(tmp_path)}) as small:
        assert not (await small.call("children", {})).is_error
        assert _marked(tmp_path)
    await until(lambda: not _marked(tmp_path))


async def test_no_process_is_left_when_the_gateway_is_killed(tmp_path: Path) -> None:
    holder = await _holder(tmp_path)
    await _told(holder)
    assert _marked(tmp_path)
    holder.kill()
    await holder.wait()
    await until(lambda: not _marked(tmp_path))


@pytest.mark.parametrize("alone", [True, False])
async def test_memory_beyond_the_limit_ends_the_call_and_not_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    if not alone:
        monkeypatch.setenv(guard.RECORD, str(tmp_path / "refused.jsonl"))
    async with running(tmp_path, memory_bytes=200 << 20) as small:
        assert (await small.call("memory", {"bytes": 400 << 20})).is_error
        await until(lambda: small.problem is not None)
        await serves(small)


async def test_the_log_stays_within_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_LOG_BYTES", 100_000)
    monkeypatch.setattr(process, "SHORTEN_INTERVAL_S", 0.01)
    async with running(tmp_path) as small:
        await small.call("log", {"lines": 1000})
        log = tmp_path / "_tool-small.log"
        await until(lambda: 0 < log.stat().st_size <= 100_000)
    assert log.stat().st_mode & 0o777 == 0o600


async def _holder(folder: Path, *inside: str) -> asyncio.subprocess.Process:
    """A process like a gateway, over the small server."""
    arguments = (*inside, sys.executable, "-m", "support.tool_holder", str(folder))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE, env=environment)


async def _told(holder: asyncio.subprocess.Process) -> Json:
    assert holder.stdout
    return dict(json.loads(await holder.stdout.readline()))


def _guardians() -> list[int]:
    """Those of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in map(int, children) if b"guardian" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _marked(folder: Path) -> list[str]:
    """The processes with this folder among their variables."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            environment = (each / "environ").read_bytes()
        except OSError:
            continue
        if f"MARK={folder}".encode() in environment and int(each.name) != os.getpid():
            found.append(each.name)
    return found
