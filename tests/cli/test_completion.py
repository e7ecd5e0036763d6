"""What a shell completes, asked as bash asks for it."""

import asyncio
import socket
from pathlib import Path

import pytest

from support.command_line import cappella
from support.fake_engines import FakeEngines, gateway_config, serving


def completed(line: str, folder: str | Path = "", **environment: str) -> list[str]:
    """What may stand where the line ends."""
    words = line.split(" ")
    asks = {"_CAPPELLA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = cappella(folder=folder, **asks, **environment)
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_options_are_completed() -> None:
    assert completed("cappella se") == ["serve"]
    assert {"--preset", "--strategy", "--quiet", "--json"} <= set(completed("cappella ask --"))
    assert completed("cappella ask --strategy s") == ["synthesize", "select"]


def test_config_files_are_found_here_and_one_folder_further(tmp_path: Path) -> None:
    (tmp_path / "model_configs").mkdir()
    for name in ("model_configs/demo.yaml", "model_configs/notes.txt", "own.yml"):
        (tmp_path / name).write_text("")
    assert completed("cappella serve mod", tmp_path) == ["model_configs/demo.yaml"]
    assert completed("cappella plan model_configs/", tmp_path) == ["model_configs/demo.yaml"]
    assert completed("cappella check ./o", tmp_path) == ["./own.yml"]
    # The shell's own completion of paths takes over.
    assert completed("cappella check /nowhere/", tmp_path) == []


async def test_names_of_a_server_that_runs_are_completed(fake_engines: FakeEngines) -> None:
    config = gateway_config(presets={"quick": {"strategy": "vote"}, "quality": {"debias": True}})
    async with serving(fake_engines, config) as url:
        ask = f"cappella ask --url {url}"
        models = await asyncio.to_thread(completed, f"{ask} --model cappella/")
        presets = await asyncio.to_thread(completed, f"{ask} --preset qui")
        other = await asyncio.to_thread(completed, f"{ask} --model ann --preset q")
    assert models == ["cappella/default", "cappella/fixed", "cappella/tools"]
    assert presets == ["quick"]
    assert other == []


@pytest.mark.parametrize("answers", ["nobody", "silence", "nonsense"])
def test_a_server_that_does_not_answer_is_no_error_and_is_not_waited_for(answers: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        if answers == "silence":
            holder.listen()
        url = "nonsense" if answers == "nonsense" else f"http://127.0.0.1:{port}"
        # A wait without a limit of its own would be ended by that of `completed`, which is an error.
        assert completed(f"cappella chat --url {url} --model c") == []


def test_strategies_are_completed() -> None:
    assert completed("cappella ask --strategy v") == ["vote"]
