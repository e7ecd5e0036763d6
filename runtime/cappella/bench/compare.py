"""Measures every system under every load and size, in turns, so that a slow minute affects all of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from typing import Any

import aiohttp

from cappella.bench.figures import Figures, figures
from cappella.bench.load import Batch, Load, put
from cappella.bench.peers import Optillm, optillm_server
from cappella.bench.servers import gateway, plain_servers
from cappella.bench.systems import Ensemble, Naive, Sizes, Streamed, System
from cappella.config import Config
from cappella.errors import ConfigError

SYSTEMS = ("single", "naive", "single-plain", "naive-plain")

# Plain vLLM's processes spin for a second after their last message, which would slow the next system.
SETTLE_S = 1.5

Print = Callable[[str], None]
Show = Callable[[str, int, int], None]
"""Receives the step that starts, the number of finished steps, and the number of all steps."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, on the server at `url`, or on one that is started.

    `vary` holds fields of `fusion` with their values; each combination of values is measured as one system.
    """

    config_path: Path
    url: str | None
    config: Config
    ensemble: str
    against: Sequence[str]
    loads: Sequence[Load]
    panels: Sequence[int]
    answer_tokens: Sequence[int | None]
    prompts: Iterator[str]
    optillm_python: Path | None
    runs: int
    rounds: int
    fusion: Mapping[str, Any] = field(default_factory=dict)
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def members(self) -> list[str]:
        return list(dict.fromkeys(seat.model for seat in self.config.ensembles[self.ensemble].seats))

    @property
    def needs_plain(self) -> bool:
        return self.optillm_python is not None or any(name.endswith("-plain") for name in self.against)

    @property
    def judge(self) -> str:
        return self.config.ensembles[self.ensemble].judge.model


async def compare(plan: Plan, log_dir: Path, log: Print, show: Show) -> list[Figures]:
    """Start the servers, measure, stop the servers. Raises ConfigError.

    `log` receives messages that should stay on the screen, `show` each step as it starts.
    """
    _require_known(plan)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(open_session())
        url = plan.url
        if url is None:
            log(f"Starting {len(plan.config.models)} engines (logs in {log_dir})")
            url = await stack.enter_async_context(gateway(plan.config_path, log_dir / "cappella"))
        plain: Mapping[str, str] = {}
        if plan.needs_plain:
            log(f"Starting {len(plan.config.models)} plain vLLM servers beside them")
            plain = await stack.enter_async_context(plain_servers(plan.config, log_dir / "plain"))
        systems = _systems(plan, http, url, plain)
        for system in systems:
            if isinstance(system, Naive):
                await stack.enter_async_context(system)
        if plan.optillm_python:
            peer = await stack.enter_async_context(optillm_server(plan.optillm_python, plain[plan.judge], log_dir))
            systems.append(Optillm(http, peer, plan.judge))
        return [result async for result in _measure(plan, systems, log, show)]


async def _measure(plan: Plan, systems: Sequence[System], log: Print, show: Show) -> AsyncIterator[Figures]:
    cells = list(product(plan.loads, plan.panels, plan.answer_tokens))
    done_steps, steps = count(), len(cells) * len(systems) * (plan.rounds + 1)
    for number, (load, panel, tokens) in enumerate(cells, 1):
        sizes = Sizes(panel, tokens)
        batches: dict[str, list[Batch]] = {system.name: [] for system in systems}
        about = f"{number} of {len(cells)}: {load}, panel of {panel}, {tokens or 'unlimited'} tokens"
        for system in systems:
            show(f"{about}: {system.name} warms up", next(done_steps), steps)
            await put(system, load, sizes, plan.prompts, load.concurrency or 1)
        for turn in range(plan.rounds):
            for system in _rotated(systems, turn):
                show(f"{about}: round {turn + 1} of {plan.rounds}, {system.name}", next(done_steps), steps)
                await asyncio.sleep(SETTLE_S)
                batches[system.name].append(await put(system, load, sizes, plan.prompts, plan.runs))
        for name, done in batches.items():
            result = figures(name, str(load), panel, tokens, done)
            if result is None:
                log(f"{name}, {load}: no reply: {done[0].errors[0]}")
            else:
                yield result


def _systems(plan: Plan, http: aiohttp.ClientSession, url: str, plain: Mapping[str, str]) -> list[System]:
    members, judge = plan.members, plan.judge
    out: list[System] = [
        Ensemble(" ".join(["cappella", *settings]), http, url, plan.ensemble, members, {**plan.fusion, **fusion})
        for settings, fusion in _variants(plan.vary)
    ]
    cappella = dict.fromkeys(plan.config.models, url)
    made: dict[str, Callable[[], System]] = {
        "single": lambda: Streamed("one model", http, url, members[0], {}),
        "naive": lambda: Naive("naive script", cappella, members, judge),
        "single-plain": lambda: Streamed("one model, plain vLLM", http, plain[members[0]], members[0], {}),
        "naive-plain": lambda: Naive("naive script, plain vLLM", plain, members, judge),
    }
    return out + [made[name]() for name in plan.against if name in made]


def _variants(vary: Mapping[str, Sequence[Any]]) -> list[tuple[list[str], dict[str, Any]]]:
    """Every combination, with its name."""
    names = list(vary)
    combinations = [dict(zip(names, values, strict=True)) for values in product(*vary.values())]
    return [([f"{name}={value}" for name, value in fields.items()], fields) for fields in combinations]


def _rotated(systems: Sequence[System], turn: int) -> list[System]:
    start = turn % len(systems)
    return [*systems[start:], *systems[:start]]


def require_ensemble(config: Config, name: str) -> None:
    """Raises ConfigError if there is none of this name."""
    if name not in config.ensembles:
        known = ", ".join(config.ensembles)
        raise ConfigError("--ensemble", f"there is no ensemble {name!r}", f"Use one of {known}")


def _require_known(plan: Plan) -> None:
    require_ensemble(plan.config, plan.ensemble)
    for name in plan.against:
        if name not in SYSTEMS:
            raise ConfigError("--against", f"{name!r} is not a system", f"Use some of {', '.join(SYSTEMS)}")
    if plan.needs_plain and (remote := ", ".join(plan.config.remote)):
        raise ConfigError(
            "--against", f"no plain server can be started of {remote}, which runs elsewhere", "Leave it out"
        )


def open_session() -> aiohttp.ClientSession:
    """For many requests at once, however long each takes."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        read_bufsize=1 << 20,
    )
