"""The pieces of an engine process that need no vLLM: its environment, its command line, its log, its weights."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config, Model
from cappella.engines import address
from cappella.engines.backends import STARTUP_STAGES
from cappella.engines.process import logged
from cappella.engines.process.process import EngineProcess
from cappella.engines.supervisor import Supervisor
from cappella.engines.vllm import server_args
from cappella.errors import ConfigError
from cappella.placement import folder
from cappella.placement.planner import Placed
from cappella.sealing.variables import SEAL
from support.fake_engines import eventually
from support.stub_engine import fork_server
from support.weights_folder import write_model


def model(**fields: Any) -> Model:
    return Model.model_validate({"weights": "/w", "max_model_len": 64, "kv_cache_bytes": "1MiB", **fields})


def pairs(**fields: Any) -> dict[str, str]:
    placed = Placed("ann", (0,), 0, 0, 1 << 20, 64, 1.0, 2048, "fits one GPU")
    flags = server_args.arguments("ann", model(**fields), placed, Path("/run/engine.sock"))
    return {
        flag: following if not following.startswith("--") else ""
        for flag, following in zip(flags, [*flags[1:], "--"], strict=True)
        if flag.startswith("--")
    }


@pytest.mark.parametrize(
    "name",
    "HTTP_PROXY https_proxy ALL_PROXY PYTHONPATH PYTHONSTARTUP HF_TOKEN HUGGING_FACE_HUB_TOKEN VLLM_PLUGINS"
    " VLLM_ALLOW_INSECURE_SERIALIZATION OTEL_TRACES_EXPORTER WANDB_API_KEY TORCHINDUCTOR_REDIS_URL KINETO_USE_DAEMON"
    " TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE TRITON_REMOTE_CACHE_BACKEND CAPPELLA_EGRESS_ALLOWED".split(),
)
def test_what_could_open_the_seal_is_not_inherited(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "leak")
    assert server_args.environment(threads=1).get(name) != "leak"


@pytest.mark.parametrize("name", sorted(SEAL))
def test_the_operators_shell_cannot_unset_the_seal(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0.0.0.0")
    assert server_args.environment(threads=None)[name] == SEAL[name]


def test_what_is_harmless_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert server_args.environment(threads=None)["CUDA_VISIBLE_DEVICES"] == "1"


def test_what_torch_compiled_is_kept_for_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/ann/.cache")
    assert server_args.environment(threads=1)["TORCHINDUCTOR_CACHE_DIR"] == "/home/ann/.cache/cappella/inductor"


def test_an_eager_engine_on_a_cpu_compiles_nothing() -> None:
    assert server_args.environment(threads=1, eager=True)["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in server_args.environment(threads=1)
    assert "TORCH_COMPILE_DISABLE" not in server_args.environment(threads=None, eager=True)


def test_the_client_drops_an_idle_connection_long_before_the_server_does() -> None:
    server_s = float(server_args.environment(threads=None)["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"])
    assert server_s >= 10 * address.KEEP_ALIVE_S


def test_the_server_listens_on_a_socket_and_on_no_port() -> None:
    flags = pairs()
    assert flags["--uds"] == "/run/engine.sock"
    assert not {"--host", "--port", "--trust-remote-code", "--api-key"} & set(flags)
    assert (flags["--served-model-name"], flags["--model"], flags["--max-model-len"]) == ("ann", "/w", "64")


def test_switches_and_mappings_become_flags_as_vllm_reads_them() -> None:
    args = {"async_scheduling": True, "enable_eplb": False, "hf_overrides": {"x": 1}, "cpu-offload-gb": 2.5}
    flags = pairs(enforce_eager=True, engine_args=args)
    assert flags["--enforce-eager"] == ""
    assert flags["--async-scheduling"] == ""
    assert "--enable-eplb" not in flags
    assert json.loads(flags["--hf-overrides"]) == {"x": 1}
    assert flags["--cpu-offload-gb"] == "2.5"


def test_prompt_lookup_is_speculation_by_what_followed_the_same_words_before() -> None:
    # vLLM refuses to tell figures of guesses where none are made.
    assert not {"--speculative-config", "--per-request-spec-decode-metrics"} & set(pairs())
    guessing = json.loads(pairs(prompt_lookup_tokens=6)["--speculative-config"])
    assert (guessing["method"], guessing["num_speculative_tokens"]) == ("ngram", 6)
    placed = Placed("ann", (0,), 0, 0, 1 << 20, 64, 1.0, 2048, "fits one GPU")
    flags = server_args.arguments("ann", model(prompt_lookup_tokens=6), placed, Path("/s"), on_gpu=True)
    assert json.loads(flags[flags.index("--speculative-config") + 1])["method"] == "ngram_gpu"


def test_a_model_that_takes_no_images_is_started_without_its_encoder() -> None:
    placed = Placed("ann", (0,), 0, 0, 1 << 20, 64, 1.0, 2048, "fits one GPU", text_only=True)
    assert "--language-model-only" in server_args.arguments("ann", model(), placed, Path("/s"))
    assert "--language-model-only" not in pairs()


def test_a_model_that_takes_images_is_given_no_room_for_videos_and_sounds() -> None:
    # vLLM refuses Gemma 4, whose videos have 2,496 tokens, where a step has 2,048.
    placed = Placed("ann", (0,), 0, 0, 1 << 20, 64, 1.0, 2048, "fits one GPU", takes_images=True)
    flags = server_args.arguments("ann", model(), placed, Path("/s"))
    assert json.loads(flags[flags.index("--limit-mm-per-prompt") + 1]) == {"video": 0, "audio": 0}
    assert "--limit-mm-per-prompt" not in pairs()


async def engine(path: Path, body: str) -> EngineProcess:
    """An engine process that has run `body` and ended."""
    forks = fork_server(path / "modules", f"def main():\n    {body}")
    started = await forks.launch([], path / "run" / "ann", path / "logs" / "ann.log")
    await asyncio.wait_for(started.wait(), 20)
    await forks.close()
    return started


async def test_the_log_shows_the_stage_and_the_cause_of_death(tmp_path: Path) -> None:
    words = "\n".join(stage.marks[0] for stage in STARTUP_STAGES.stages[1:3])
    started = await engine(tmp_path, f"print({words!r}, flush=True); raise SystemExit('ValueError: no such head size')")
    assert not started.running
    assert await started.exit_reason() == "ValueError: no such head size (exit code 1)"
    assert started.startup_log.stage.name == "starting the engine core"
    assert not (tmp_path / "run").exists()


async def test_the_logs_of_the_last_three_launches_stay_beside_the_new_one(tmp_path: Path) -> None:
    for text in ("zeroth", "first", "second", "third", "fourth"):
        log = (await engine(tmp_path, f"print({text!r})")).log
    kept = {path.name: path.read_text().split()[0] for path in log.parent.iterdir()}
    assert kept == {
        "ann.log": "fourth",
        "ann.previous.log": "third",
        "ann.previous.2.log": "second",
        "ann.previous.3.log": "first",
    }


async def test_the_reason_of_a_silent_death_is_its_exit_code(tmp_path: Path) -> None:
    assert await (await engine(tmp_path, "raise SystemExit(3)")).exit_reason() == "exit code 3, and it printed nothing"


async def test_the_reason_of_a_death_by_a_signal_is_the_signal_whatever_the_log_holds(tmp_path: Path) -> None:
    body = "import os; print('Engine 000: Avg prompt throughput: 1.1 tokens/s', flush=True); os.kill(os.getpid(), 9)"
    reason = await (await engine(tmp_path, body)).exit_reason()
    assert reason == "killed by signal 9 (SIGKILL); was it the kernel's OOM killer? See dmesg"


async def test_an_error_that_the_engine_survived_is_not_what_it_dies_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logged, "HEALTHY_MARK_INTERVAL_S", 0.0)
    forks = fork_server(
        tmp_path / "modules", "def main():\n    print('ValueError: bad', flush=True); import time; time.sleep(600)"
    )
    started = await forks.launch([], tmp_path / "run" / "ann", tmp_path / "ann.log")
    assert await eventually(lambda: "bad" in started.log.read_text(), 20)
    for _ in range(2):
        started.mark_healthy()
    with started.log.open("a") as log:
        log.write("(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory.\n")
    assert await started.logged_error() == "torch.OutOfMemoryError: CUDA out of memory."
    await started.kill()
    await forks.close()
    assert await started.exit_reason() == "torch.OutOfMemoryError: CUDA out of memory."


@pytest.mark.parametrize("config", [[], 7, None])
def test_a_config_json_of_another_shape_is_named(tmp_path: Path, config: Any) -> None:
    found = write_model(tmp_path / "w")
    (found / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"models\.ann\.weights.*config\.json"):
        folder.inspect("ann", found)


def test_a_pickle_beside_safetensors_is_left_alone(tmp_path: Path) -> None:
    found = write_model(tmp_path / "w")
    (found / "training_args.bin").write_bytes(b"x")
    assert folder.inspect("ann", found).path == found


def deployment(root: Path) -> Config:
    entry = {"weights": str(write_model(root / "w")), "max_model_len": 64, "kv_cache_bytes": "1MiB"}
    ensemble = {"panel": ["ann"], "judge": "bob"}
    return Config.model_validate({"models": {"ann": entry, "bob": entry}, "ensembles": {"default": ensemble}})


def test_an_engine_sees_only_its_planned_gpus() -> None:
    env = server_args.environment(threads=None, gpus=[2, 0], sleep_mode=True)
    assert (env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]) == ("2,0", "PCI_BUS_ID")
    assert env["VLLM_SERVER_DEV_MODE"] == "1"
    assert server_args.environment(threads=None, gpus=[0])["VLLM_SERVER_DEV_MODE"] == "0"


def test_sleep_mode_and_numa_nodes_are_on_the_command_line() -> None:
    placed = Placed("ann", (0, 1), 0, 0, 1 << 20, 64, 1.0, 2048, "split")
    flags = server_args.arguments("ann", model(), placed, Path("/s"), sleep_mode=True, numa_nodes=(0, 1))
    assert "--enable-sleep-mode" in flags
    at = flags.index("--numa-bind-nodes")
    assert flags[at + 1 : at + 3] == ["0", "1"]
    assert "--numa-bind" in flags
    assert "--numa-bind" not in pairs()


@pytest.mark.parametrize(("sleep_mode", "free_graphs"), [(True, True), (True, False), (False, True)])
def test_a_sleeper_gives_its_graphs_back_where_the_config_says_so(sleep_mode: bool, free_graphs: bool) -> None:
    placed = Placed("ann", (0,), 0, 0, 1 << 20, 64, 1.0, 2048, "fits one GPU")
    flags = server_args.arguments("ann", model(), placed, Path("/s"), sleep_mode, free_graphs)
    assert ("--sleep-mode-offload-cudagraph" in flags) == (sleep_mode and free_graphs)


async def test_a_supervisor_that_never_started_leaves_nothing_behind(tmp_path: Path) -> None:
    supervisor = Supervisor(deployment(tmp_path), tmp_path / "logs")
    private = supervisor._runtime_dir
    assert private.stat().st_mode & 0o777 == 0o700
    assert list(supervisor.statuses) == ["ann", "bob"]
    assert {status.state for status in supervisor.statuses.values()} == {"waiting"}
    await supervisor.stop()
    assert not private.exists()


def test_socket_paths_are_short_enough_for_linux(tmp_path: Path) -> None:
    supervisor = Supervisor(deployment(tmp_path), tmp_path / "logs")
    try:
        longest = supervisor._runtime_dir / ("x" * 64) / "engine.sock"
        assert len(str(longest).encode()) < 108
    finally:
        supervisor._runtime_dir.rmdir()


def test_engines_with_the_same_environment_share_a_fork_server(tmp_path: Path) -> None:
    entry = {
        "weights": str(write_model(tmp_path / "w")),
        "max_model_len": 64,
        "kv_cache_bytes": "1MiB",
        "cpu_threads": 1,
    }
    models = {"ann": entry, "bob": entry, "cat": {**entry, "cpu_threads": 2}, "dan": {**entry, "enforce_eager": True}}
    ensembles = {"default": {"panel": ["ann"], "judge": "bob"}}
    supervisor = Supervisor(Config.model_validate({"models": models, "ensembles": ensembles}), tmp_path / "logs")
    supervisor._runtime_dir.rmdir()
    ann, bob, cat, dan = (supervisor.lifecycles[name]._launcher for name in ("ann", "bob", "cat", "dan"))
    assert ann is bob
    assert len({id(each) for each in (ann, cat, dan)}) == 3
