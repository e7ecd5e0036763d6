"""Runs the stack where only loopback exists, asks every model a question, and reports attempts to reach a network.

`python -m cappella.doctor.trial CONFIG [--guard-alone]` prints a report as JSON. It is a process of its own, since it cannot
leave its network namespace again.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from cappella.config import Config, UrlTool, load
from cappella.sealing import guard, namespace, packets, sockets
from cappella.types import Json

GUARD_ALONE = "--guard-alone"
POLL_S = 0.2
ANSWER_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 60.0
TOOLS_TIMEOUT_S = 120.0
MODEL_TOKENS = 64
_CHAT = "/v1/chat/completions"
SETTLED = ("ready", "asleep")
FAILED = ("restarting", "failed")
TCP_LISTEN = "0A"
LAST_LINES = 8


def main(path: Path, guard_alone: bool) -> Json:
    """The report: only `impossible` if namespaces are not allowed; otherwise `asked`, `attempts`, `listening`, `unseen`."""
    config = load.load(path)
    allowed = [str(address) for address in config.server.may_reach]
    try:
        watch = None if guard_alone else _watched(allowed)
    except OSError as error:
        return {"impossible": error.strerror or str(error)}
    with tempfile.TemporaryDirectory(prefix="cappella-doctor-") as folder:
        record = Path(folder, "refused.jsonl")
        # What is attached by its address does not answer where only loopback exists, and a new one at that.
        urls = (name for name, tool in config.tools.items() if isinstance(tool, UrlTool))
        away = frozenset[str]() if guard_alone else frozenset((*config.remote, *urls))
        with _running(path, record, Path(folder), away) as (url, problem):
            asked = [] if problem else [_ask(url, *each) for each in _questions(config, away)]
            # Outside a namespace, the stack's ports cannot be told from this machine's.
            listening = [] if guard_alone else sorted(_listening())
        unseen = _stopped(watch) if watch else 0
        attempts = [*_refused(record), *_sent(watch)]
    left_out = sorted(away)
    return {
        "problem": problem,
        "asked": asked,
        "left_out": left_out,
        "attempts": attempts,
        "listening": listening,
        "unseen": unseen,
    }


Watch = tuple[packets.PacketWatch, sockets.SocketWatch]


def _watched(allowed: list[str]) -> Watch:
    namespace.enter()
    return packets.PacketWatch(allowed), sockets.SocketWatch()


@contextmanager
def _running(config: Path, record: Path, folder: Path, away: Collection[str]) -> Iterator[tuple[str, str]]:
    """The stack's address once all engines are up or failed, and the reason if it did not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "gateway.log"
    command = [sys.executable, "-m", "cappella.doctor.stack", str(config), str(port), str(folder), str(os.getpid())]
    with log.open("wb") as sink:
        environment = {**os.environ, guard.RECORD: str(record), guard.OWN_SOCKETS: os.pathsep.join(_own_sockets())}
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
    try:
        _log("starting the engines")
        yield f"http://127.0.0.1:{port}", _settled(f"http://127.0.0.1:{port}", process, log, away)
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def _own_sockets() -> list[str]:
    """The beginnings of the paths of the stack's own sockets: its runtime folder's, and multiprocessing's."""
    return [os.path.join(os.path.realpath(tempfile.gettempdir()), each) for each in ("cappella-", "pymp-")]


def _settled(url: str, process: "subprocess.Popen[bytes]", log: Path, away: Collection[str]) -> str:
    """Wait for the engines that are not `away`; returns why they cannot answer, or nothing."""
    while process.poll() is None:
        time.sleep(POLL_S)
        try:
            engines = _call(f"{url}/ready", None, 5)["engines"]
        except (OSError, ValueError):
            continue
        if failed := [f"{name}: {each['reason']}" for name, each in engines.items() if each["state"] in FAILED]:
            return "; ".join(failed)
        if all(each["state"] in SETTLED for name, each in engines.items() if name not in away):
            return _settled_tools(url, away)
    return "it ended while starting: " + " | ".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])


def _settled_tools(url: str, away: Collection[str]) -> str:
    """Wait for the tool servers that are not `away`; returns why they do not serve, or nothing."""
    until = time.monotonic() + TOOLS_TIMEOUT_S
    while True:
        servers = _call(f"{url}/api/machine", None, 5)["tool_servers"]
        here = {name: each for name, each in servers.items() if name not in away}
        if time.monotonic() > until or all(each["state"] != "starting" for each in here.values()):
            return "; ".join(f"{name}: {each['problem']}" for name, each in here.items() if each["problem"])
        time.sleep(POLL_S)


def _questions(config: Config, away: Collection[str]) -> Iterator[tuple[str, str, Json]]:
    """One question for every ensemble and every model that needs no engine that is `away`: its path, and its body."""
    for name, ensemble in config.ensembles.items():
        if {ensemble.judge.model, *(seat.model for seat in ensemble.seats)} & set(away):
            continue
        yield f"cappella/{name}", _CHAT, {"messages": [_turn("user", ensemble.examples[0])]}
    example = next(iter(config.ensembles.values())).examples[0]
    for name in config.models_by_name.keys() - set(away):
        path, body = _question(config.models_by_name[name].task, example)
        yield name, path, body


def _question(task: str, text: str) -> tuple[str, Json]:
    """A call of a model with this task."""
    match task:
        case "embed":
            return "/v1/embeddings", {"input": text}
        case "rerank":
            return "/v1/rerank", {"query": text, "documents": [text]}
        case "reward":
            return "/classify", {"messages": [_turn("user", text), _turn("assistant", text)]}
        case _:
            return _CHAT, {"messages": [_turn("user", text)], "max_completion_tokens": MODEL_TOKENS}


def _turn(role: str, text: str) -> Json:
    return {"role": role, "content": text}


def _ask(url: str, model: str, path: str, more: Json) -> Json:
    _log(f"asking {model}")
    body = {"model": model, **more}
    began = time.monotonic()
    try:
        reply = _call(f"{url}{path}", body, ANSWER_TIMEOUT_S)
        error = reply["error"]["message"] if "error" in reply else None
    except (OSError, ValueError) as broken:
        error = str(broken)
    return {"model": model, "seconds": round(time.monotonic() - began, 2), "error": error}


def _call(url: str, body: Json | None, timeout_s: float) -> Json:
    """Send and receive JSON, errors included, without a proxy."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as reply:
            return dict(json.load(reply))
    except urllib.error.HTTPError as error:
        with error:
            return dict(json.load(error))


def _refused(record: Path) -> list[Json]:
    """Connections that the guard refused in our processes, with their counts."""
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    counts = Counter((e["what"], e["to"], e["by"], e["process"]) for e in map(json.loads, lines))
    keys = ("what", "to", "by", "process")
    return [{"seen_by": "guard", **dict(zip(keys, each, strict=True)), "times": n} for each, n in counts.items()]


def _stopped(watch: Watch) -> int:
    """Stop watching; returns how many packets were not seen."""
    watched_packets, watched_sockets = watch
    watched_sockets.close()
    return watched_packets.close()


def _sent(watch: Watch | None) -> list[Json]:
    """Packets and sockets that the kernel saw and the guard did not."""
    counts = watch[0].sent + watch[1].seen if watch else {}
    return [{"seen_by": "kernel", "what": what, "to": to, "times": n} for (what, to), n in counts.items()]


def _listening() -> Iterator[str]:
    """Addresses where other machines could connect to the stack."""
    for table in filter(Path.exists, (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))):
        for line in table.read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            host, port = local.split(":")
            # The kernel writes every four bytes as a number in this machine's byte order.
            words = [bytes.fromhex(host[at : at + 8]) for at in range(0, len(host), 8)]
            address = ip_address(b"".join(w[::-1] if sys.byteorder == "little" else w for w in words))
            address = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
            if state == TCP_LISTEN and not address.is_loopback:
                yield f"{address} port {int(port, 16)}"


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), GUARD_ALONE in sys.argv[2:])))
