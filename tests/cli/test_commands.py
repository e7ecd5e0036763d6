"""The commands as a person runs them: right, and wrong on purpose."""

import asyncio
import json
import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from cappella.config import cards, load
from cappella.engines import log_folder
from cappella.errors import ConfigError
from cappella.gateway.http_server import bind
from cappella.placement import advice, folder, machine
from support.command_line import cappella, start
from support.weights_folder import write_model

ROOT = Path(__file__).parents[2]


def deployment(home: Path) -> Path:
    write_model(home / "ann", tokenizer={"added_tokens": [{"content": "<|end|>", "special": True}]})
    model = {"weights": "ann", "max_model_len": 64, "kv_cache_bytes": "1MiB"}
    config = {"models": {"ann": model}, "ensembles": {"default": {"panel": ["ann"], "judge": "ann"}}}
    path = home / "c.yaml"
    path.write_text(json.dumps(config))
    return path


def test_check_describes_a_good_config(tmp_path: Path) -> None:
    done = cappella("check", str(deployment(tmp_path)))
    assert done.returncode == 0
    assert "cappella/default: ann (quorum 1), judge ann" in done.stdout


@pytest.mark.parametrize(
    ("command", "harm", "says"),
    [
        ("check", "missing", "there is no such folder"),
        ("plan", "missing", "there is no such folder"),
        ("serve", "missing", "there is no such folder"),
        ("check", "pickle", "pytorch_model.bin is a pickle"),
        ("plan", "empty", "there is no .safetensors file"),
        ("serve", "code", "needs code from the model's folder"),
        ("check", "tokenizer", "tokenizer.json cannot be read"),
        ("serve", "tokenizer", "tokenizer.json cannot be read"),
    ],
)
def test_weights_that_cannot_be_served_are_one_line_and_exit_code_2(
    tmp_path: Path, command: str, harm: str, says: str
) -> None:
    config, home = deployment(tmp_path), tmp_path / "ann"
    match harm:
        case "missing":
            home.rename(tmp_path / "elsewhere")
        case "pickle":
            (home / "model.safetensors").rename(home / "pytorch_model.bin")
        case "empty":
            (home / "model.safetensors").unlink()
        case "code":
            (home / "config.json").write_text('{"auto_map": {"AutoModel": "evil.py"}}')
        case "tokenizer":
            (home / "tokenizer.json").unlink()
    done = cappella(command, str(config), *(["--port", "0"] if command == "serve" else []))
    assert done.returncode == 2
    assert says in done.stderr
    assert "models.ann.weights" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_a_config_the_one_of_this_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cappella("check")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "cappella.yaml: cannot be read" in done.stderr
    deployment(tmp_path).rename(tmp_path / "cappella.yaml")
    assert "cappella/default: ann" in cappella("check").stdout


def test_the_schema_takes_the_shipped_configs_and_refuses_a_typo() -> None:
    schema = jsonschema_rs.validator_for(json.loads(cappella("schema").stdout))
    configs = [yaml.safe_load(path.read_text()) for path in (ROOT / "model_configs").glob("*.yaml")]
    assert configs
    assert all(schema.is_valid(config) for config in configs)
    vote = {"models": {"ann": {"weights": "w"}}, "ensembles": {"default": {"panel": ["ann"] * 3, "strategy": "vote"}}}
    assert schema.is_valid(vote)
    configs[0]["ensembles"]["default"]["jugde"] = "ann"
    assert not schema.is_valid(configs[0])


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


def test_a_log_folder_in_use_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with log_folder.hold(tmp_path / "logs"):
        done = cappella("serve", str(deployment(tmp_path)), "--port", "0", "--log-dir", str(tmp_path / "logs"))
    assert done.returncode == 2
    assert "another server writes its engines' logs there" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_too_little_memory_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    config.write_text(config.read_text().replace("1MiB", "9000GiB"))
    done = cappella("serve", str(config), "--port", "0")
    assert done.returncode == 2
    assert re.search(r"they need at least (900\d\.\d) GiB \(ann \1\)", done.stderr)
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
    shown = cappella("plan", config, "--gpus", "2x24GiB", COLUMNS="120")
    assert shown.returncode == 0
    assert "fits one GPU" in shown.stdout
    assert "GPU 1" in shown.stdout
    plan = json.loads(cappella("plan", config, "--gpus", "2x24GiB", "--json").stdout)
    (model,) = plan["models"]
    assert (model["model"], model["gpus"], model["kv_cache_bytes"]) == ("ann", [0], 1 << 20)
    assert [device["total_bytes"] for device in plan["devices"]] == [24 << 30] * 2


def test_a_plan_over_nodes_names_them_and_says_what_a_run_sends(tmp_path: Path) -> None:
    config = str(deployment(tmp_path))
    shown = cappella("plan", config, "--nodes", "a:24GiB,b:24GiB", COLUMNS="120").stdout
    assert "a GPU 0" in shown
    assert "over the network" in shown
    refused = cappella("plan", config, "--nodes", "24GiB")
    assert (refused.returncode, "--nodes" in refused.stderr) == (2, True)


def test_a_plan_for_this_machine_is_made_without_a_gpu(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    assert "no GPU" in cappella("plan", str(config), COLUMNS="120").stdout
    config.write_text(config.read_text().replace("1MiB", "9000GiB"))
    done = cappella("plan", str(config))
    assert done.returncode == 2
    assert "use --gpus H100" in done.stderr


def test_a_plan_names_its_columns_in_plain_words(tmp_path: Path) -> None:
    shown = cappella("plan", str(deployment(tmp_path)), "--gpus", "2x24GiB", COLUMNS="120").stdout
    assert shown.splitlines()[0].replace("at once", "at_once").split() == [
        "model",
        "on",
        "weights",
        "KV",
        "overhead",
        "total",
        "context",
        "at_once",
        "dtype",
        "reason",
    ]


@pytest.mark.parametrize(
    ("gpus", "hint"),
    [
        ("1x24GiB;1x48GiB", "24GiB,2xL40S for different ones"),
        ("24GiB and more", "Write 2x24GiB"),
        ("H100x", "known names: B200, H200, H100,"),
        ("2xA100", "A100-80, A100-40"),
        ("H100 or so", "known names: "),
        ("64x24GiB,24GiB", "64 at most"),
        ("1x80", "80 has no unit. Write 1x80GiB."),
        ("24GiB,80", "80 has no unit. Write 1x80GiB."),
    ],
)
def test_gpus_are_read_wholly_or_refused(gpus: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        machine.described(gpus)
    assert hint in str(caught.value)
    assert str(caught.value).startswith("--gpus ")


@pytest.mark.parametrize("path", sorted((ROOT / "model_configs").glob("*x*gb.yaml")), ids=lambda path: path.stem)
def test_the_command_in_a_configs_comment_says_that_it_fits(path: Path) -> None:
    command = re.search(r"`cappella plan (\S+) --gpus (\S+)`", path.read_text())
    assert command
    assert ROOT / command[1] == path
    assert advice.plan(load.load(path), machine.described(command[2])).placed


def test_gpus_may_differ() -> None:
    assert [device.total_bytes >> 30 for device in machine.described("2x24GiB, 48GiB").devices] == [24, 24, 48]


def test_a_size_in_a_config_is_read_wholly_or_refused(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    config.write_text(config.read_text().replace("1MiB", "2GiB + 5"))
    with pytest.raises(ConfigError, match="kv_cache_bytes"):
        load.load(config)


def test_check_names_every_missing_folder_at_once_and_what_fetches_those_with_a_card(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    said = json.loads(config.read_text())
    model = said["models"]["ann"]
    card = cards.SHIPPED / "qwen3-8b.yaml"
    said["models"] |= {"bob": {**model, "weights": "bob"}, "cat": {**model, "weights": "cat", "card": str(card)}}
    config.write_text(json.dumps(said))
    done = cappella("check", str(config))
    assert done.returncode == 2
    bob, cat = done.stderr.strip().splitlines()
    assert "models.bob.weights" in bob
    assert "pull" not in bob
    assert "models.cat.weights" in cat
    assert "Run `cappella pull` with this config to fetch it (16.4 GB)" in cat
    assert done.stdout == f"ann: ok, {tmp_path / 'ann'}\n"


@pytest.mark.parametrize("is_file", [True, False])
def test_gguf_is_refused_by_its_name(tmp_path: Path, is_file: bool) -> None:
    at = tmp_path / ("m.gguf" if is_file else "m")
    if not is_file:
        at.mkdir()
    (at if is_file else at / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"GGUF is not supported\. Use the safetensors files of the same model"):
        folder.inspect("ann", at)


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--port", "80000"), "--port 80000: "), (("--host", "0.0.0.0"), "allow_open"), (("--port", "-1"), "--port -1: ")],
)
def test_an_address_that_may_not_be_listened_on_is_one_line_and_exit_code_2(
    tmp_path: Path, options: tuple[str, str], says: str
) -> None:
    done = cappella("serve", str(deployment(tmp_path)), *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", [("list",), ("revoke", "k1")])
def test_a_file_of_keys_that_is_not_there_is_one_line_and_exit_code_2(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = cappella("keys", command[0], str(tmp_path / "keys"), *command[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no such file" in done.stderr
    assert not (tmp_path / "keys").exists()


def test_help_names_values_in_capitals_and_says_what_exit_codes_mean() -> None:
    done = cappella("serve", "--help", COLUMNS="200")
    assert "serve [OPTIONS] [CONFIG]" in done.stdout
    assert "<bool>" not in done.stdout
    assert "<int>" not in done.stdout
    assert "<path>" not in done.stdout
    assert "2 a mistake in the config or the command line" in done.stdout
    assert "3 something tried to reach" in cappella("doctor", "--help", COLUMNS="200").stdout


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("cli.app, cappella.cli.client.ask", "pydantic yaml starlette"),
        ("cli.app, cappella.cli.doctor", "starlette aiohttp"),
    ],
)
def test_a_command_imports_no_library_that_it_does_not_use(modules: str, heavy: str) -> None:
    code = f"import sys, cappella.{modules}; assert not set({heavy.split()}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


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
    assert "Connection refused" in nowhere.stderr
    assert "ssl" not in nowhere.stderr


async def test_a_server_may_be_named_with_v1_without_a_scheme_and_by_the_environment(gateway: str) -> None:
    for url in (f"{gateway}/v1", f"{gateway}/v1/", gateway.removeprefix("http://")):
        assert (await asyncio.to_thread(cappella, "ask", "Hi", "--url", url)).returncode == 0, url
    done = await asyncio.to_thread(lambda: cappella("ask", "Hi", CAPPELLA_URL=f"{gateway}/v1"))
    assert (done.returncode, done.stdout) == (0, "The final answer\n")


def test_a_client_that_connects_as_soon_as_the_address_is_known_waits_instead_of_being_refused() -> None:
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), timeout=5):
        pass


def test_the_documentation_can_be_read_in_a_terminal() -> None:
    listed, shown = cappella("docs"), cappella("docs", "troubleshooting")
    assert "troubleshooting  Troubleshooting" in listed.stdout
    assert shown.stdout.startswith("# Troubleshooting\n")
    wrong = cappella("docs", "trouble")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "there is no page 'trouble'" in wrong.stderr


def test_a_pager_that_shows_codes_of_colours_as_text_is_told_to_use_them() -> None:
    ours, theirs = pty.openpty()
    pager = {"PAGER": "printenv LESS", "TERM": "xterm"}
    command = start(["docs", "choosing"], [theirs] * 3, {**os.environ, **pager})
    try:
        with open(ours, "rb", closefd=False) as shown:
            assert shown.readline() == b"-R\r\n"
    finally:
        command.kill()
        os.close(theirs)
        os.close(ours)
