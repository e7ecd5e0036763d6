"""The commands as a person runs them: right, and wrong on purpose."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cappella.gateway.http_server import bind
from support.weights_folder import write_model


def deployment(folder: Path) -> Path:
    write_model(folder / "ann", tokenizer={"added_tokens": [{"content": "<|end|>", "special": True}]})
    model = {"weights": "ann", "max_model_len": 64, "kv_cache_bytes": "1MiB"}
    config = {"models": {"ann": model}, "ensembles": {"default": {"panel": ["ann"], "judge": "ann"}}}
    path = folder / "c.yaml"
    path.write_text(json.dumps(config))
    return path


def cappella(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cappella", *arguments]
    own = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=own)


def test_check_describes_a_good_config(tmp_path: Path) -> None:
    done = cappella("check", str(deployment(tmp_path)))
    assert done.returncode == 0
    assert "cappella/default: ann (quorum 1), judge ann" in done.stdout


@pytest.mark.parametrize("command", ["check", "plan", "serve"])
@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("missing", "there is no such folder"),
        ("pickle", "pytorch_model.bin is a pickle"),
        ("empty", "there is no .safetensors file"),
        ("code", "asks for code from the model's folder"),
        ("tokenizer", "tokenizer.json cannot be read"),
    ],
)
def test_weights_that_cannot_be_served_are_one_line_and_exit_code_2(
    tmp_path: Path, command: str, harm: str, says: str
) -> None:
    config, folder = deployment(tmp_path), tmp_path / "ann"
    match harm:
        case "missing":
            folder.rename(tmp_path / "elsewhere")
        case "pickle":
            (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        case "empty":
            (folder / "model.safetensors").unlink()
        case "code":
            (folder / "config.json").write_text('{"auto_map": {"AutoModel": "evil.py"}}')
        case "tokenizer":
            (folder / "tokenizer.json").unlink()
    done = cappella(command, str(config), *(["--port", "0"] if command == "serve" else []))
    assert done.returncode == 2
    assert says in done.stderr
    assert "models.ann.weights" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_config_typo_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    config.write_text(config.read_text().replace("judge", "jugde"))
    done = cappella("serve", str(config))
    assert done.returncode == 2
    assert "Did you mean judge?" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_in_use_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        done = cappella("serve", str(deployment(tmp_path)), "--port", str(holder.getsockname()[1]))
    assert done.returncode == 2
    assert "cannot be bound (Address already in use)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_too_little_memory_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    config.write_text(config.read_text().replace("1MiB", "9000GiB"))
    done = cappella("serve", str(config), "--port", "0")
    assert done.returncode == 2
    assert "they need at least 9001.3 GiB (ann 9001.3)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_for_sockets_that_is_too_deep_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    done = cappella("serve", str(deployment(tmp_path)), "--port", "0", TMPDIR=str(deep))
    assert done.returncode == 2
    assert "models.ann: the paths of its sockets" in done.stderr
    assert "Set TMPDIR to a shorter path" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(deep.iterdir()) == []


def test_a_plan_is_a_table_and_a_bar_and_the_same_as_json(tmp_path: Path) -> None:
    config = str(deployment(tmp_path))
    shown = cappella("plan", config, "--gpus", "2x24GiB")
    assert shown.returncode == 0
    assert "fits whole" in shown.stdout
    assert "GPU 1" in shown.stdout
    plan = json.loads(cappella("plan", config, "--gpus", "2x24GiB", "--json").stdout)
    (model,) = plan["models"]
    assert (model["model"], model["gpus"], model["kv_cache_bytes"]) == ("ann", [0], 1 << 20)
    assert [device["total_bytes"] for device in plan["devices"]] == [24 << 30] * 2


def test_a_plan_for_this_machine_is_made_without_a_gpu(tmp_path: Path) -> None:
    assert "no GPU" in cappella("plan", str(deployment(tmp_path))).stdout


@pytest.mark.parametrize("arguments", [["--gpus", "1x1GiB"], ["--gpus", "two"]])
def test_a_plan_that_is_impossible_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(deployment(tmp_path).read_text().replace("1MiB", "2GiB"))
    done = cappella("plan", str(config), *arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


async def test_ask_prints_the_answer_in_a_pipe_and_all_of_it_as_json(gateway: str) -> None:
    plain = await asyncio.to_thread(cappella, "ask", "Hi", "--url", gateway)
    assert (plain.returncode, plain.stdout) == (0, "The final answer\n")
    whole = json.loads((await asyncio.to_thread(cappella, "ask", "Hi", "--url", gateway, "--json")).stdout)
    assert len(whole["fusion"]["responses"]) == 3
    member = await asyncio.to_thread(cappella, "ask", "Hi", "--url", gateway, "--model", "ann")
    assert member.stdout == "Hello there\n"


async def test_ask_says_what_is_wrong_in_one_line(gateway: str) -> None:
    unknown = await asyncio.to_thread(cappella, "ask", "Hi", "--url", gateway, "--model", "nobody")
    assert unknown.returncode == 1
    assert "There is no model 'nobody' here" in unknown.stderr
    nowhere = await asyncio.to_thread(cappella, "ask", "Hi", "--url", "http://127.0.0.1:1")
    assert nowhere.returncode == 1
    assert "Is `cappella serve` running there?" in nowhere.stderr
    assert len(nowhere.stderr.strip().splitlines()) == 1


def test_a_client_that_connects_as_soon_as_the_address_is_known_waits_instead_of_being_refused() -> None:
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), timeout=5):
        pass
