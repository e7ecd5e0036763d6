"""The lifecycle of an engine over a stub server: start, crash, back-off, giving up, no orphan process."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from shutil import rmtree

import pytest

from cappella.config import Model
from cappella.engines import gpu_memory, startup
from cappella.engines.circuit_breaker import MAX_BROKEN_REQUESTS
from cappella.engines.gpu_memory import GpuMemory
from cappella.engines.vllm import server_args
from cappella.errors import ConfigError
from cappella.placement.planner import Placed
from support.fake_engines import eventually
from support.real_deployment import alive
from support.stub_engine import NAME, environment, fork_server
from support.stub_lifecycle import STUB, Stub, gone, members, running_stub, server_of


async def test_ready_means_that_a_token_came_back_and_stop_leaves_nothing(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        assert stub.folder.stat().st_mode & 0o777 == 0o700
        group = stub.group
        assert len(members(group)) == 3
    assert stub.engine.status.state == "stopped"
    assert await eventually(lambda: not members(group), 5)
    assert not stub.folder.exists()


async def test_a_dead_core_is_detected_and_the_engine_restarted(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        first = stub.group
        async with stub.engine._http.get("http://engine/die"):
            pass
        assert await eventually(lambda: stub.engine.status.state == "restarting", 5)
        assert stub.engine.status.reason == "engine core died"
        assert await stub.ready()
        assert stub.engine.status.restarts == 1
        assert not members(first)


async def test_a_server_that_takes_no_connections_any_more_is_dead(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        async with stub.engine._http.get("http://engine/close"):
            pass
        await stub.engine.close()
        assert await eventually(lambda: stub.engine.status.state == "restarting", 5)


@pytest.mark.parametrize("deleted", ["engine.sock", ".", ".."])
async def test_an_engine_whose_socket_or_folder_was_deleted_is_restarted(tmp_path: Path, deleted: str) -> None:
    """Its connections of before last on, and over these it says that it is well."""
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        first, path = stub.group, (stub.folder / deleted).resolve()
        path.unlink() if path.is_socket() else rmtree(path)
        assert await eventually(lambda: stub.engine.status.restarts == 1, 5)
        assert stub.engine.status.reason == "its socket was deleted"
        assert await stub.ready()
        assert stub.folder.stat().st_mode & 0o777 == 0o700
        assert not members(first)


async def test_a_killed_server_is_restarted_and_its_children_end(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        group = stub.group
        os.kill(server_of(group), signal.SIGKILL)
        assert await eventually(lambda: stub.engine.status.restarts == 1, 5)
        assert await stub.ready()
        assert not members(group)


async def test_broken_calls_of_a_crash_do_not_open_the_circuit_of_the_next_launch(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        for number in range(MAX_BROKEN_REQUESTS):
            stub.engine.circuit_breaker.record_break(stub.engine.circuit_breaker.launch, b"%d" % number)
        os.kill(server_of(stub.group), signal.SIGKILL)
        assert await eventually(lambda: stub.engine.status.restarts == 1, 5)
        assert await stub.ready()
        assert not stub.engine.circuit_breaker.is_open


async def test_without_sleep_mode_an_engine_stops_to_sleep_and_starts_to_wake(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        group = stub.group
        await stub.lifecycle.sleep()
        assert stub.state == "asleep"
        assert await eventually(partial(gone, group), 5)
        await stub.lifecycle.wake()
        assert stub.state == "ready"
        assert stub.engine.status.restarts == 0


async def test_an_engine_that_is_to_start_asleep_starts_with_its_first_turn(tmp_path: Path) -> None:
    stub = Stub(tmp_path, "ok", (0.1,), sleep_mode=False)
    stub.lifecycle.start_asleep()
    task = asyncio.create_task(stub.lifecycle.run())
    assert await eventually(lambda: stub.engine.status.state == "asleep", 5)
    assert stub.lifecycle._launch.process is None
    await stub.lifecycle.wake()
    assert stub.engine.status.state == "ready"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await stub.fork_server.close()


async def test_an_engine_put_to_sleep_before_its_launch_is_not_launched(tmp_path: Path) -> None:
    stub = Stub(tmp_path, "ok", (0.1,), sleep_mode=False)
    slots = stub.lifecycle._start_slots
    await slots.acquire()
    task = asyncio.create_task(stub.lifecycle.run())
    await asyncio.sleep(0.05)
    await stub.lifecycle.sleep()
    slots.release()
    assert await eventually(lambda: stub.state == "asleep", 5)
    assert stub.lifecycle._launch.process is None
    await stub.lifecycle.wake()
    assert stub.state == "ready"
    assert stub.engine.status.restarts == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await stub.fork_server.close()


async def test_a_driver_error_counts_as_a_failed_start(tmp_path: Path) -> None:
    stub = Stub(tmp_path, "ok", (0.05,), sleep_mode=True)

    def broken() -> int:
        raise ConfigError("this machine's GPUs", "the driver broke off", "See nvidia-smi")

    stub.lifecycle._spec = replace(stub.lifecycle._spec, memory=GpuMemory(broken, 1))
    await asyncio.wait_for(stub.lifecycle.run(), 10)
    assert stub.state == "failed"
    assert "the driver broke off" in stub.engine.status.stage
    await stub.fork_server.close()


async def test_a_sleep_that_frees_the_memory_keeps_the_process(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_mode=True) as stub:
        assert await stub.ready()
        group = stub.group
        await stub.lifecycle.sleep()
        assert (stub.engine.status.state, stub.free_bytes()) == ("asleep", 100)
        await stub.lifecycle.wake()
        assert stub.state == "ready"
        assert stub.group == group


async def test_a_sleep_that_does_not_free_the_memory_stops_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory, "SLEEP_FREES_TIMEOUT_S", 0.2)
    async with running_stub(tmp_path, "holds on", sleep_mode=True) as stub:
        assert await stub.ready()
        group = stub.group
        await stub.lifecycle.sleep()
        assert stub.state == "asleep"
        assert await eventually(partial(gone, group), 5)
        await stub.lifecycle.wake()
        assert stub.state == "ready"


async def test_an_engine_does_not_start_while_others_hold_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory, "ROOM_TIMEOUT_S", 0.1)
    async with running_stub(tmp_path, sleep_mode=True, needs=50 << 30) as stub:
        assert await eventually(lambda: stub.engine.status.state == "failed", 20)
        assert "its GPU has 0.0 GiB free and it needs 50.0: another process holds the rest" in stub.engine.status.stage
        assert stub.lifecycle._launch.process is None


async def test_an_engine_that_does_not_answer_after_its_sleep_is_restarted(tmp_path: Path) -> None:
    async with running_stub(tmp_path, "wakes broken", sleep_mode=True) as stub:
        assert await stub.ready()
        group = stub.group
        await stub.lifecycle.sleep()
        await stub.lifecycle.wake()
        assert await stub.ready()
        assert stub.group != group
        assert stub.engine.status.restarts == 1


async def test_a_log_that_cannot_be_written_counts_as_a_failed_start(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("no folder")
    async with running_stub(tmp_path, delays_s=(0.05,)) as stub:
        assert await eventually(lambda: stub.state == "failed", 20)
        assert "could not be started: " in stub.engine.status.stage


async def test_a_crash_loop_is_given_up_with_the_reason(tmp_path: Path) -> None:
    async with running_stub(tmp_path, "crash") as stub:
        assert await eventually(lambda: stub.engine.status.state == "failed", 20)
        assert stub.engine.status.stage == (
            "gave up after 3 tries: did not start: ValueError: the weights are cursed (exit code 1)"
        )
        assert any("cursed" in line for line in stub.lifecycle.log_excerpt())


async def test_the_same_config_error_twice_is_given_up(tmp_path: Path) -> None:
    async with running_stub(tmp_path, "mistake", delays_s=(0.05, 600.0, 600.0)) as stub:
        assert await eventually(lambda: stub.state == "failed", 20)
        assert stub.engine.status.stage.startswith("gave up after 2 tries: did not start: ValueError: the weights")


async def test_a_config_that_the_server_refuses_is_given_up_at_once_with_its_own_sentence(tmp_path: Path) -> None:
    async with running_stub(tmp_path, "refused", delays_s=(600.0, 600.0)) as stub:
        assert await eventually(lambda: stub.state == "failed", 20)
        assert stub.engine.status.stage == (
            "gave up after 1 try: did not start: User-specified max_model_len (9) is greater than 8 (exit code 1)"
        )


@pytest.mark.parametrize("mode", ["never up", "chatters"])
async def test_a_start_that_hangs_gives_the_only_slot_to_the_next(tmp_path: Path, mode: str) -> None:
    slots = asyncio.Semaphore(1)
    async with running_stub(tmp_path / "ann", mode, (0.1,) * 99, slots=slots, stalled_after_s=4.0) as hangs:
        assert await eventually(lambda: hangs.lifecycle.process_group is not None, 20)
        async with running_stub(tmp_path / "bob", slots=slots) as bob:
            assert await bob.ready()
            failure = hangs.engine.status.last_failure
            assert failure
            assert failure.reason == "no progress for 4 s while reading the model's config"


async def test_an_import_that_hangs_is_begun_anew(tmp_path: Path) -> None:
    hangs_once = """
from pathlib import Path
import time
once = Path(__file__).with_name("once")
if not once.exists():
    once.touch()
    time.sleep(600)
"""
    async with running_stub(tmp_path, delays_s=(0.05,) * 9, stalled_after_s=4.0, before_import=hangs_once) as stub:
        assert await stub.ready()
        failure = stub.engine.status.last_failure
        assert failure
        assert failure.reason == "no progress for 4 s while importing vLLM"


async def test_a_start_whose_memory_grows_is_not_stalled(tmp_path: Path) -> None:
    memory = iter(range(0, 1 << 40, 2 << 20))
    forks = fork_server(tmp_path / "modules", "def main():\n    import time; time.sleep(600)")
    process = await forks.launch([], tmp_path / "run" / "ann", tmp_path / "ann.log")
    assert await eventually(lambda: process.guardian_pid is not None, 20)
    detector = startup.StallDetector(process, lambda _: next(memory), stalled_after_s=0.2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await detector.watch()
    await process.kill()
    await forks.close()


async def test_an_exit_without_an_error_is_no_config_error(tmp_path: Path) -> None:
    async with running_stub(tmp_path, "silent death", delays_s=(0.05, 0.05, 0.05)) as stub:
        assert await eventually(lambda: stub.state == "failed", 20)
        assert stub.engine.status.stage.startswith("gave up after 4 tries: did not start: exit code 1")


async def test_the_last_failure_stays_after_the_engine_has_recovered(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        assert stub.engine.status.last_failure is None
        began = time.time()
        os.kill(server_of(stub.group), signal.SIGKILL)
        assert await eventually(lambda: stub.engine.status.restarts == 1, 5)
        assert await stub.ready()
        failure = stub.engine.status.last_failure
        assert stub.engine.status.reason is None
        assert failure is not None
        assert "signal 9 (SIGKILL)" in failure.reason
        assert began <= failure.time <= time.time()
        assert failure.log == str(tmp_path / "logs" / "ann.previous.log")
        await stub.lifecycle.restart()
        assert await eventually(lambda: _failure_log(stub) == str(tmp_path / "logs" / "ann.previous.2.log"), 20)


def _failure_log(stub: Stub) -> str | None:
    failure = stub.engine.status.last_failure
    return failure.log if failure else None


GATEWAY = """
import asyncio, os, sys
from pathlib import Path
from cappella.engines.backends import STARTUP_STAGES
from cappella.engines.process.process import ForkServer
async def main(name, folder):
    fork_server = ForkServer(name, STARTUP_STAGES, os.environ, folder / "fork-server.log")
    engine = await fork_server.launch([str(folder / "run/ann/engine.sock"), "ok"], folder / "run/ann", folder / "ann.log")
    while not (folder / "run/ann/engine.sock").exists():
        await asyncio.sleep(0.01)
    print(fork_server._process.pid, engine.guardian_pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


def test_kill_9_of_the_gateway_ends_the_engine_and_the_fork_server(tmp_path: Path) -> None:
    fork_server(tmp_path, STUB)
    command = [sys.executable, "-c", GATEWAY, NAME, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(tmp_path)) as gateway:
        assert gateway.stdout
        forks, group = map(int, gateway.stdout.readline().split())
        assert len(members(group)) == 3
        gateway.kill()
    assert asyncio.run(eventually(lambda: not alive([forks, *members(group)]), 12))
    assert not (tmp_path / "run").exists()


def test_the_environment_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "VLLM_SERVER_DEV_MODE", "OTEL_EXPORTER_OTLP_ENDPOINT", "HF_TOKEN"):
        monkeypatch.setenv(name, "leak")
    env = server_args.environment(threads=2)
    assert "leak" not in env.values()
    assert env["HF_HUB_OFFLINE"] == env["VLLM_NO_USAGE_STATS"] == env["DO_NOT_TRACK"] == "1"
    assert (env["OMP_NUM_THREADS"], env["VLLM_CPU_OMP_THREADS_BIND"]) == ("2", "nobind")
    assert "OMP_NUM_THREADS" not in server_args.environment(threads=None) or "OMP_NUM_THREADS" in os.environ


def test_the_arguments_hold_the_exact_kv_size_and_the_engine_args() -> None:
    model = Model.model_validate(
        {
            "weights": "w",
            "max_model_len": 64,
            "kv_cache_bytes": "3MiB",
            "engine_args": {
                "speculative_config": {"method": "ngram"},
                "async-scheduling": True,
                "enable_prefix_caching": False,
            },
        }
    )
    placed = Placed("ann", (0, 1), 0, 0, 3 << 20, 64, 1.0, 2048, "split")
    arguments = server_args.arguments("ann", model, placed, Path("/x/engine.sock"))
    pairs = dict(pairwise(arguments))
    assert pairs["--kv-cache-memory-bytes"] == str(3 << 20)
    assert pairs["--tensor-parallel-size"] == "2"
    assert pairs["--load-format"] == "safetensors"
    assert pairs["--speculative-config"] == '{"method": "ngram"}'
    assert "--async-scheduling" in arguments
    assert "--no-enable-prefix-caching" in arguments
    assert "--enforce-eager" not in arguments
