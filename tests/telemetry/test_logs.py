"""JSON logs: all output is lines of JSON, with a line for each request and run, and no content."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.real_deployment import ROOT
from support.stub_engine import NAME, environment
from support.weights_folder import write_model

Line = dict[str, Any]

# Answers every chat request, and exits at a request to /v1/completions.
STUB = """
import os, sys
from aiohttp import web
async def health(_): return web.Response()
async def metrics(_): return web.Response(text="")
async def die(_): os._exit(1)
async def chat(_):
    chunk = '{"choices":[{"delta":{"content":"a-secret-answer"},"finish_reason":"stop"}]}'
    usage = '{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}'
    events = "".join(f"data: {each}\\n\\n" for each in (chunk, usage, "[DONE]"))
    return web.Response(text=events, content_type="text/event-stream")
def main():
    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/metrics", metrics)])
    app.add_routes([web.post("/v1/chat/completions", chat), web.post("/v1/completions", die)])
    web.run_app(app, path=sys.argv[sys.argv.index("--uds") + 1], print=None)
"""

# `cappella` with the module above instead of vLLM.
CAPPELLA = f"""
import os
from cappella.engines import backends
sealed = backends.server_environment
def environment(*given, **more):
    env = sealed(*given, **more)
    return env | {{"PYTHONPATH": env["PYTHONPATH"] + os.pathsep + os.environ["STUB"]}}
backends.server_environment, backends.SERVER_MODULE = environment, "{NAME}"
from cappella.cli.app import app
app()
"""


def config(folder: Path, **server: Any) -> Path:
    write_model(folder / "ann", tokenizer={"added_tokens": []})
    model = {"weights": "ann", "max_model_len": 1024, "kv_cache_bytes": "1MiB"}
    ensemble = {"panel": ["ann"], "judge": "ann", "analysis": "off"}
    settings = {
        "models": {"ann": model},
        "ensembles": {"default": ensemble},
        "server": {"log_format": "json", **server},
    }
    (folder / "c.yaml").write_text(json.dumps(settings))
    return folder / "c.yaml"


def command(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    modules = folder / "modules"
    modules.mkdir()
    (modules / f"{NAME}.py").write_text(STUB)
    env = {**environment(ROOT / "runtime"), "STUB": str(modules)}
    return subprocess.Popen([sys.executable, "-c", CAPPELLA, *arguments], stderr=subprocess.PIPE, text=True, env=env)


def read_until(lines: Iterator[str], seen: list[Line], event: str, **fields: Any) -> Line:
    """Read up to the line of that event; every line before it must be JSON."""
    for text in lines:
        seen.append(json.loads(text))
        if seen[-1]["event"] == event and fields.items() <= seen[-1].items():
            return seen[-1]
    raise AssertionError(f"no {event} {fields} among {seen}")


def post(url: str, body: Line) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=30) as reply:
        reply.read()


def send(url: str, data: bytes) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 0), 10) as connection:
        connection.sendall(data)
        connection.recv(100)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    """All lines of a server: start, run, call, rejected requests, a crash and restart of an engine, stop."""
    folder = tmp_path_factory.mktemp("serve")
    path, log_dir = str(config(folder)), str(folder / "logs")
    seen: list[Line] = []
    with command(folder, "serve", path, "--port", "0", "--log-dir", log_dir) as process:
        assert process.stderr
        lines = iter(process.stderr)
        try:
            url = read_until(lines, seen, "ready")["url"]
            prompt = {"messages": [{"role": "user", "content": "a-secret-question"}]}
            # A line is written once the client has its reply: its next request must not overtake it.
            post(f"{url}/v1/chat/completions?key=a-secret-key", {"model": "cappella/default", **prompt})
            read_until(lines, seen, "request")
            for model in ("ann", "a-secret-model"):
                post(f"{url}/v1/chat/completions", {"model": model, **prompt})
                read_until(lines, seen, "request")
            post(f"{url}/v1/completions", {"model": "ann", "prompt": "a-secret-question"})
            send(url, b"garbage\r\n\r\n")
            read_until(lines, seen, "uvicorn.error")
            read_until(lines, seen, "engine", state="restarting")
            read_until(lines, seen, "engine", state="ready", restarts=1)
        finally:
            process.send_signal(signal.SIGTERM)
        seen += [json.loads(line) for line in lines]
        assert process.wait(30) == 0
    return seen


def of(output: list[Line], event: str) -> list[Line]:
    return [line for line in output if line["event"] == event]


def test_every_line_has_its_time_level_event_and_message(output: list[Line]) -> None:
    assert all({"time", "level", "event", "message"} <= line.keys() for line in output)
    levels = {line["event"]: line["level"] for line in output}
    assert levels.pop("uvicorn.error") == "warning"
    assert set(levels.values()) == {"info"}


def test_start_and_stop_are_events(output: list[Line]) -> None:
    events = list(dict.fromkeys(line["event"] for line in output))
    assert set(events) == {
        "plan",
        "listening",
        "engine",
        "ensemble",
        "ready",
        "run",
        "request",
        "uvicorn.error",
        "stopped",
    }
    assert [event for event in events if event not in ("ensemble", "engine")] == [
        "plan", "listening", "ready", "run", "request", "uvicorn.error", "stopped"
    ]  # fmt: skip
    assert of(output, "plan")[0]["models"][0]["model"] == "ann"
    assert of(output, "ready")[0]["ensembles"] == ["cappella/default"]


def test_a_run_is_logged_with_its_id_status_tokens_and_time(output: list[Line]) -> None:
    (run,) = of(output, "run")
    assert run["run_id"].startswith("run-")
    assert (run["ensemble"], run["status"], run["key_id"]) == ("default", "single", None)
    assert (run["prompt_tokens"], run["completion_tokens"]) == (10, 6)
    assert 0 < run["first_token_s"] <= run["seconds"] < 10


def test_each_request_is_logged_with_its_status_and_time(output: list[Line]) -> None:
    requests = of(output, "request")
    assert [(line["path"], line["status"]) for line in requests][:3] == [
        ("/v1/chat/completions", 200),
        ("/v1/chat/completions", 200),
        ("/v1/chat/completions", 404),
    ]
    assert [line.get("asked") for line in requests][:3] == ["cappella/default", "ann", None]
    assert requests[2]["error"] == "UnknownModel"
    assert requests[3]["status"] == 502
    assert all(line["ms"] > 0 for line in requests)


def test_prompts_and_answers_are_not_logged(output: list[Line]) -> None:
    assert "secret" not in json.dumps(output)


def test_a_crash_and_restart_of_an_engine_are_logged(output: list[Line]) -> None:
    lines = of(output, "engine")
    states = [line["state"] for line in lines]
    died = states.index("restarting")
    assert states.index("ready") < died
    assert "process ended" in lines[died]["reason"]
    assert "ready" in states[died:]
    assert [line["answers"] for line in of(output, "ensemble")] == [True, False, True]


def test_a_failed_start_is_one_line(tmp_path: Path) -> None:
    path = config(tmp_path)
    (tmp_path / "ann" / "model.safetensors").unlink()
    with command(tmp_path, "serve", str(path), "--port", "0", "--log-dir", str(tmp_path)) as process:
        assert process.stderr
        (line,) = [json.loads(text) for text in process.stderr]
        assert process.wait(30) == 2
    assert (line["event"], line["level"]) == ("refused", "error")
    assert "there is no .safetensors file" in line["message"]


def test_foreign_logs_warnings_blocked_connections_and_crashes_are_lines_of_json() -> None:
    code = """
import logging, socket, warnings
from cappella.gateway.console import JsonReporter
from cappella.sealing import guard
from cappella.telemetry import logs
logs.use_json()
guard.install([], JsonReporter().report_blocked)
logging.getLogger("uvicorn.error").warning("a warning of %s", "uvicorn\\udcff")
warnings.warn("mind the step")
try:
    socket.create_connection(("192.0.2.7", 80))
except PermissionError:
    pass
raise ValueError("it died")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(ROOT / "runtime"), capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["uvicorn.error", "py.warnings", "sealed", "died"]
    assert lines[0]["message"] == "a warning of uvicorn\udcff"
    assert "192.0.2.7" in lines[2]["message"]
    assert "ValueError: it died" in lines[3]["traceback"]
    assert done.returncode == 1


def test_text_logs_have_no_requests(tmp_path: Path) -> None:
    path = config(tmp_path, log_format="text")
    with command(tmp_path, "serve", str(path), "--port", "0", "--log-dir", str(tmp_path / "logs")) as process:
        assert process.stderr
        output = []
        try:
            for line in process.stderr:
                output.append(line)
                if line.startswith("Ready: "):
                    post(f"{line.split()[3].rstrip('.')}/v1/chat/completions", {"model": "nobody"})
                    break
        finally:
            process.send_signal(signal.SIGTERM)
        output += list(process.stderr)
        assert process.wait(30) == 0
    text = "".join(output)
    assert "Gateway on http://127.0.0.1:" in text
    assert "ann: ready" in text
    assert "curl http" in text
    assert text.endswith("Stopped; no engine is left running.\n")
    assert not re.search(r"\b404\b", text)
