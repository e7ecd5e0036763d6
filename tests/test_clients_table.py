"""The suite of other people's clients: its table is complete, and its scripted model uses tools as it should."""

import json
import re
from pathlib import Path

import pytest

from cappella.config import Config
from clients import report
from clients.player import play
from clients.real import NAMES, config
from clients.table import AGENTS, CLIENTS, LIBRARIES, Client, script_of

RESULTS = Path(__file__).parents[1] / "scripts" / "bench_results"
DOCS = Path(__file__).parents[1] / "runtime" / "cappella" / "docs" / "clients.md"


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_each_client_is_pinned_and_says_how_to_set_it_up(client: Client) -> None:
    assert re.fullmatch(r"\d+(\.\d+)+", client.version)
    assert client.setup
    assert len(client.setup.splitlines()) <= 3
    assert bool(client.script) != bool(client.command)


@pytest.mark.parametrize("client", LIBRARIES, ids=lambda client: client.name)
def test_each_library_has_its_script(client: Client) -> None:
    assert script_of(client).exists()


def test_the_committed_table_is_made_of_the_committed_results() -> None:
    rows = json.loads((RESULTS / "clients.json").read_text())
    assert (RESULTS / "clients.md").read_text() == report.table(rows)
    lines = report.table(rows)
    assert lines[lines.index("| client |") :].strip() in DOCS.read_text(), "copy the table to docs/clients.md"
    assert {row["client"] for row in rows} >= {client.name for client in AGENTS}


def test_the_table_says_what_was_not_asked_of_real_weights() -> None:
    scripted = {"client": "llm", "version": "0.36", "checks": {"chat stream": "ok", "chat tool": "ok"}}
    real = {"checks": {"chat stream": "ok"}}
    *_, line = report.table([{**scripted, "real": real}]).splitlines()
    assert "| 2 of 2 | 1 of 1; not asked: chat tool |" in line
    *_, line = report.table([scripted]).splitlines()
    assert "| 2 of 2 | not run |" in line


def test_the_config_of_the_real_server_names_the_weights_and_takes_tools() -> None:
    served = Config.model_validate(config(Path("/weights")))
    assert {model.weights.name for model in served.local.values()} == set(NAMES)
    assert served.ensembles["default"].tools


def tool(name: str, *properties: str, kind: str = "string") -> dict[str, object]:
    words = {each: {"type": kind} for each in properties}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": words}}}


@pytest.mark.parametrize(
    ("tools", "wanted"),
    [
        (
            [tool("Read", "file_path"), tool("Edit", "file_path", "old_string", "new_string")],
            [
                ("Read", {"file_path": "/w/notes.txt"}),
                ("Edit", {"file_path": "/w/notes.txt", "old_string": "blue", "new_string": "green"}),
            ],
        ),
        (
            [tool("exec_command", "cmd")],
            [("exec_command", {"cmd": "cat /w/notes.txt"}), ("exec_command", {"cmd": "sed -i s/blue/green/ /w/notes.txt"})],
        ),
    ],
)  # fmt: skip
def test_the_scripted_model_reads_changes_and_reads_again(
    tools: list[object], wanted: list[tuple[str, dict[str, str]]]
) -> None:
    messages: list[object] = [{"role": "user", "content": "Read the file /w/notes.txt, and change it."}]
    calls = []
    for _ in range(3):
        (call,) = play({"messages": messages, "tools": tools}).calls
        calls.append((call[0], json.loads(call[1])))
        messages.append({"role": "tool", "content": "well"})
    assert calls == [*wanted, wanted[0]]
    assert not play({"messages": messages, "tools": tools}).calls
