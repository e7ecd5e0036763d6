"""Scripted engines, and the real gateway over them."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from math import log
from pathlib import Path
from typing import Any

import uvicorn

from cappella.config import Config
from cappella.config.options import Seat, Settings
from cappella.engines.deployment import Change, Deployment
from cappella.engines.status import ACTIONS, Action, EngineStatus
from cappella.engines.swapping import SwapScheduler
from cappella.engines.vllm.client import VllmEngine
from cappella.ensemble.events import AnswerDelta, AnswerDone, Event
from cappella.ensemble.pipeline import Pipeline
from cappella.ensemble.run import Run
from cappella.errors import ActionRefused, UnknownEngine
from cappella.gateway.app import create_app
from cappella.gateway.http_protocol import connections
from cappella.gateway.http_server import MAX_FILES, connection_limits
from cappella.gateway.reload import ReadConfig, Reloader
from cappella.placement import machine
from cappella.placement.planner import Placed, Plan
from cappella.tools.base import ToolServer
from cappella.types import Prompt, Sampling
from support.scripted_engine import Json, Script, ScriptedEngine

ANALYSIS: Json = {
    "consensus": ["both greet"],
    "contradictions": [{"topic": "tone", "stances": [{"model": "A", "stance": "warm"}]}],
    "partial_coverage": [{"models": ["A", "B"], "point": "p"}],
    "unique_insights": [{"model": "B", "insight": "i"}],
    "blind_spots": ["none"],
}
MEMBERS = ("ann", "bob", "cat")
JSON = {"Content-Type": "application/json"}


def judge_script(
    final: Script | None = None, analysis: Script | None = None, choice: Callable[[Json], Script] | None = None
) -> Callable[[Json], Script]:
    """The judge's script, with a reply for each kind of call."""

    def script(body: Json) -> Script:
        if "Now compare the answers" in last_message(body):
            return analysis or Script((json.dumps(ANALYSIS),))
        if "structured_outputs" in body and choice is not None:
            return choice(body)
        return final or Script(("The", " final", " answer"))

    return script


def last_message(body: Json) -> str:
    """The last message of a request."""
    return str(body["messages"][-1]["content"])


def choice_script(**shares: float) -> Callable[[Json], Script]:
    """A judge's choice: `shares` are probabilities by a word in the answer's text."""

    def script(body: Json) -> Script:
        letters = body["structured_outputs"]["choice"]
        texts = {letter: last_message(body).split(f"[answer {letter} ")[1].split("[end ")[0] for letter in letters}
        each = {letter: sum(p for word, p in shares.items() if word in texts[letter]) or 1e-9 for letter in letters}
        best = max(each, key=lambda letter: each[letter])
        top = [{"token": letter, "logprob": log(share)} for letter, share in each.items()]
        return Script((best,), logprobs=({"token": best, "logprob": log(each[best]), "top_logprobs": top},))

    return script


class FakeEngines:
    """Members ann, bob and cat, and a judge; scripts can be changed before a run."""

    def __init__(self) -> None:
        self.servers = {name: ScriptedEngine(name, lambda _: Script()) for name in MEMBERS}
        self.servers["judge"] = ScriptedEngine("judge", judge_script())
        self.engines: dict[str, VllmEngine] = {}
        self.events: list[Event] = []
        self.reloader: Reloader  # of the gateway over these engines
        self.deployment: Deployment
        self.replaced: frozenset[str] = frozenset()  # engines that a reload ends
        self.ended_engines: list[str] = []
        self.logs: dict[str, Path] = {}
        self.swap_scheduler: SwapScheduler | None = None
        self.tool_servers: dict[str, ToolServer] = {}
        self.turns: dict[str, int] = {}  # the swap group of each engine that has one
        self.obeys = False  # an operator's actions show at once; else they are refused

    def let(self, name: str, script: Script | Callable[[Json], Script]) -> None:
        self.servers[name].script = (lambda _: script) if isinstance(script, Script) else script

    def settings(self, **changes: Any) -> Settings:
        defaults: dict[str, Any] = {
            "ensemble": "default",
            "panel": tuple(Seat(name, name, Sampling(temperature=0.7)) for name in MEMBERS),
            "judge": "judge",
            "analysis": "before",
            "quorum": 2,
            "round_timeout_s": 60.0,
            "deadline_s": 120.0,
            "seed": 1,
        }
        return Settings(**{**defaults, **changes})

    async def run(self, text: str = "Say hello.", **changes: Any) -> Run:
        return await self.put(Prompt([{"role": "user", "content": text}]), **changes)

    async def put(self, prompt: Prompt, **changes: Any) -> Run:
        pipeline = Pipeline(self.engines, self.tool_servers)
        return await pipeline.run(prompt, self.settings(**changes), self.events.append)

    @property
    def ended(self) -> list[str]:
        """The names of the answers finished so far."""
        return [event.answer.name for event in self.events if isinstance(event, AnswerDone)]

    def partial_answer(self, name: str) -> str:
        """The text that a watched member has generated so far."""
        return "".join(event.text for event in self.events if isinstance(event, AnswerDelta) and event.name == name)

    def release(self) -> None:
        """Finish all calls that are on hold."""
        for server in self.servers.values():
            server.released.set()

    def judge_prompt(self, call: int = -1) -> str:
        return last_message(self.servers["judge"].bodies[call])

    @property
    def running(self) -> int:
        return sum(server.running for server in self.servers.values())

    # What the application needs of a supervisor; processes are the edge that is scripted here.
    @property
    def plan(self) -> Plan:
        placed = {
            name: Placed(name, (0,), 100, 10, 1000, 64, 1.0, 64, "there is room", self.turns.get(name))
            for name in self._server_statuses
        }
        return Plan(machine.own_memory(), placed)

    def actions(self, name: str) -> Sequence[Action]:
        status = self._server_statuses.get(name)
        return ACTIONS[status.state] if status else ()

    async def act(self, name: str, action: str) -> None:
        if name not in self._server_statuses:
            raise UnknownEngine(name, list(self._server_statuses))
        status = self._server_statuses[name]
        # Scripted engines are never restarted: test_operating.py has processes.
        if not self.obeys:
            raise ActionRefused(name, status.state, action, ())
        status.state = "stopped" if action == "sleep" else "ready"
        status.stage = status.state

    @property
    def _server_statuses(self) -> Mapping[str, EngineStatus]:
        """Those of the engines on one server, and of each replica of the others."""
        found: dict[str, EngineStatus] = {}
        for name, engine in self.engines.items():
            servers = engine.servers
            found |= (
                {each: server.status for each, server in servers.items()} if len(servers) > 1 else {name: engine.status}
            )
        return found

    def log_of(self, name: str) -> Path | None:
        return self.logs.get(name)

    def process_groups(self) -> Mapping[str, int]:
        return {"ann": os.getpgrp()}

    @property
    def statuses(self) -> Mapping[str, EngineStatus]:
        return {name: engine.status for name, engine in self.engines.items()}

    def compare(self, config: Config) -> Change:
        """Another config of the same engines; those in `replaced` are removed and added."""
        kept = frozenset(config.models) - self.replaced
        replaced = tuple(sorted(self.replaced))
        return Change(config, self.plan, {}, kept, replaced, replaced, fits_side_by_side=True)

    def prepare(self, change: Change) -> Deployment:
        lifecycles: Any = dict.fromkeys(self.engines)
        engines: Any = self.engines
        return Deployment(change.config, change.config, machine.own_memory(), self.plan, {}, engines, lifecycles, {})

    def serve(self, config: Config) -> None:
        """Become the engines of this config."""
        self.deployment = self.prepare(self.compare(config))

    def start_engines(self, new: Deployment) -> None:
        pass

    async def stop_engines(self, old: Deployment, names: Sequence[str]) -> None:
        self.ended_engines += names

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


@asynccontextmanager
async def running_fake_engines(folder: Path) -> AsyncIterator[FakeEngines]:
    """Fake engines that listen on sockets in a folder."""
    fake_engines = FakeEngines()
    for name, server in fake_engines.servers.items():
        fake_engines.engines[name] = await server.start(folder)
    try:
        yield fake_engines
    finally:
        await asyncio.gather(*(server.stop() for server in fake_engines.servers.values()))


async def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """True once the condition holds, False after the timeout, which is generous for busy machines."""
    end = asyncio.get_running_loop().time() + timeout_s
    while not condition() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.01)
    return condition()


def gateway_config(**ensemble: Any) -> Config:
    """An ensemble with a straggler that is waited for: the default grace cuts one that a busy machine makes late."""
    parsers = {"tool_parser": "hermes", "reasoning_parser": "qwen3"}
    model = {"weights": "unused", "max_model_len": 100, "kv_cache_bytes": "1MiB", **parsers}
    default = {"panel": list(MEMBERS), "judge": "judge", "grace_s": "never", **ensemble}
    return Config.model_validate(
        {
            "models": dict.fromkeys((*MEMBERS, "judge"), model),
            "ensembles": {
                "default": default,
                "fixed": {**default, "allow_overrides": False},
                "tools": {**default, "tools": True, "analysis": "off"},
            },
            "server": {"max_body_bytes": 200_000},
        }
    )


def busy_config(**server: Any) -> Config:
    """Each engine takes two sequences, of which one run takes one; one run may wait."""
    config = gateway_config(analysis="off")
    models = {name: model.model_copy(update={"max_num_seqs": 2}) for name, model in config.models.items()}
    settings = config.server.model_copy(update={"max_waiting": 1, **server})
    return config.model_copy(update={"models": models, "server": settings})


@asynccontextmanager
async def serving(fake_engines: FakeEngines, config: Config, reread: ReadConfig | None = None) -> AsyncIterator[str]:
    """The real application on a loopback port; a reload uses the config that `reread` returns."""
    fake_engines.serve(config)
    app = create_app(config, fake_engines, reread)  # type: ignore[arg-type]
    fake_engines.reloader = app.state.reloader
    protocol: Any = connections(connection_limits(app.state.reloader.state, MAX_FILES))
    http = uvicorn.Config(app, http=protocol, port=0, log_level="error", lifespan="on", ws="none")
    http.load()
    server = uvicorn.Server(http)
    server.lifespan = http.lifespan_class(http)
    # Not `serve()` and `shutdown()`: they sleep for 0.1 s at a time, and that many hundreds of times over.
    await server.startup()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        await _stop(server)


async def _stop(server: uvicorn.Server) -> None:
    """Answers what is in flight, closes all connections, and stops the application."""
    for listener in server.servers:
        listener.close()
    state = server.server_state
    for connection in list(state.connections):
        connection.shutdown()
    await eventually(lambda: not state.connections and not state.tasks)
    await server.lifespan.shutdown()
