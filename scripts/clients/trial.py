"""One client's test: a library prints its checks; an agent must change a file as it was told."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients import environments
from clients.player import NEW, OLD
from clients.table import MODEL, Client, script_of

TIMEOUT_S, REAL_TIMEOUT_S = 600, 3600
"""Of one client's run, with scripted models and with real ones."""
KEPT = ("PATH", "LANG", "SSL_CERT_FILE", "TMPDIR")
SHOWN_CHARACTERS = 1500

Row = dict[str, Any]


@contextmanager
def scripted_gateway(notes: Path) -> Iterator[str]:
    """The address of a gateway of its own whose model is scripted; its requests are noted in a file."""
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(str(root / each) for each in ("runtime", "scripts", "tests"))
    command = [sys.executable, "-m", "clients.gateway", str(notes)]
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def tried(client: Client, cache: Path, url: str, notes: Path, is_real: bool = False) -> Row:
    """What came of it: `checks` are "ok" or what went wrong, `refusal` is the first reply of 400 or more.

    Of real, small models less is asked: not what only a clever one does.
    """
    row: Row = {"client": client.name, "version": client.version, "model": MODEL}
    before = len(_noted(notes))
    try:
        folder = environments.made(client, cache)
    except (subprocess.SubprocessError, OSError) as error:
        return {**row, "skipped": _shown(getattr(error, "stderr", "") or str(error))}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        more = {"REAL_WEIGHTS": "1"} if is_real else {}
        if client.script:
            checks = _library(client, folder, url, home, more)
        else:
            checks = _agent(client, folder, url, Path(home), notes, more)
    requests = _noted(notes)[before:]
    row |= {"checks": checks, "requests": len(requests), "took_s": round(time.monotonic() - began, 1)}
    refusals = [each for each in requests if each["status"] >= 400]
    if is_real and client.command:
        row["checks"] = _without_faults(checks, requests)
    return row | ({"refusal": _refusal(refusals[0])} if refusals else {})


def _without_faults(checks: dict[str, str], requests: Sequence[Row]) -> dict[str, str]:
    """What is asked of an agent on small models: a run to its end in which no request failed."""
    failed = next(
        (
            f"{each['request']}: {each['status']} {_shown(each['replied'])}"
            for each in requests
            if each["status"] != 200
        ),
        "",
    )
    answered = "ok" if requests and not failed else failed or "it asked for nothing"
    return {"ends well": checks["ends well"], "each request is answered": answered}


def _refusal(note: Row) -> Row:
    return {"request": note["request"], "status": note["status"], "reply": _shown(note["replied"])}


def _library(client: Client, folder: Path, url: str, home: str, more: dict[str, str]) -> dict[str, str]:
    """The checks that the client's script prints, a line of JSON for each."""
    script = script_of(client)
    if client.is_node:  # Node looks for packages beside the script.
        for each in (script, script.with_name("checks.mjs")):
            shutil.copy(each, folder)
        command = [_node(client, folder), str(folder / script.name)]
    else:
        command = [environments.program(client, folder, "python"), str(script)]
    done = _run([*command, url, MODEL], home, {"HOME": home, **more})
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"check"')]
    checks = {each["check"]: each["result"] for each in map(json.loads, lines)}
    return checks if done.returncode == 0 and checks else {**checks, "runs to its end": _shown(done.stderr)}


def _node(client: Client, folder: Path) -> str:
    """The Node of the environment, where it has one, or this machine's."""
    own = environments.program(client, folder, "node")
    return own if Path(own).exists() else "node"


def _agent(client: Client, folder: Path, url: str, home: Path, notes: Path, more: dict[str, str]) -> dict[str, str]:
    """Whether the file is right, and by how many calls of tools."""
    work = home / "work"
    work.mkdir()
    file = work / "notes.txt"
    file.write_text(f"The sky is {OLD}.\n")
    for name, text in client.files(url).items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    own = {name: value.format(url=url) for name, value in client.environment.items()}
    environment = {"HOME": str(home), **own, **more}
    name, *arguments = (each.format(file=file) for each in client.command)
    before = len(_noted(notes))
    done = _run([environments.program(client, folder, name), *arguments], str(work), environment)
    rounds = max((_results_in(each["sent"]) for each in _noted(notes)[before:] if each["status"] == 200), default=0)
    said = _shown(f"exit code {done.returncode}: {done.stdout[-600:]} {done.stderr[-600:]}")
    return {
        "the file is right": "ok" if file.read_text().strip() == f"The sky is {NEW}." else said,
        "ends well": "ok" if done.returncode == 0 else said,
        f"{client.rounds} calls of tools": "ok" if rounds >= client.rounds else f"only {rounds}",
    }


def _results_in(body: str) -> int:
    """How many results of tools a request brings back, in any of the three APIs."""
    return sum(body.count(word) for word in ('"role":"tool"', '"role": "tool"', '"tool_result"', 'call_output"'))


def _run(command: Sequence[str], folder: str, more: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run to the end, or for the allowed time, without this user's settings."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {"CI": "1", "NO_COLOR": "1"} | more
    nice = ["nice", "timeout", "--kill-after=5", str(REAL_TIMEOUT_S if "REAL_WEIGHTS" in more else TIMEOUT_S), *command]
    return subprocess.run(
        nice, cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def _noted(notes: Path) -> list[Row]:
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def _shown(text: str) -> str:
    return " ".join(text.split())[-SHOWN_CHARACTERS:]
