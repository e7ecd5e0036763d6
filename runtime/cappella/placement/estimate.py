"""What an ensemble does under a plan: its runs at once, and an estimate of the time of one run.

A typical run: each member reads 2,000 tokens and writes an answer of 800; the judge reads the 2,000 and all answers, and writes
an analysis of 400, where the ensemble has one before the answer, and 800. Where it only chooses, it writes one token. A judge
that scores reads the 2,000 with each answer, and writes nothing. One that no run asks takes neither room nor time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cappella.config import Config, Ensemble
from cappella.placement.planner import Plan
from cappella.placement.speed import Speed, speed
from cappella.vocabulary import STRATEGIES

PROMPT_TOKENS = 2000
ANSWER_TOKENS = 800
ANALYSIS_TOKENS = 400
TYPICAL = f"a prompt of {PROMPT_TOKENS:,} tokens and answers of {ANSWER_TOKENS}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One ensemble. `limited_by` is the model whose KV cache or `max_num_seqs` has room for the fewest runs.

    The times of one typical run alone, in seconds, are None where the speed of a GPU is not known, or where models wake by turns.
    `short` has for each model whose context is shorter than a typical run the tokens that it would need.
    """

    runs_at_once: float
    limited_by: str
    panel_s: float | None
    judge_s: float | None
    short: Mapping[str, int]

    @property
    def run_s(self) -> float | None:
        return None if self.panel_s is None or self.judge_s is None else self.panel_s + self.judge_s


@dataclass(frozen=True, slots=True)
class _Seat:
    """The calls of one run to one engine: so many sequences after one prompt."""

    prompt: int
    written: int
    samples: int = 1

    @property
    def tokens(self) -> int:
        return self.prompt + self.written


def estimates(config: Config, plan: Plan) -> Mapping[str, Estimate]:
    """For each ensemble that has a model here. `plan` is one with footprints."""
    found = {name: _estimate(config, ensemble, plan) for name, ensemble in config.ensembles.items()}
    return {name: each for name, each in found.items() if each is not None}


def tokens_per_s(plan: Plan) -> Mapping[str, float]:
    """What each model gives one request at the end of a typical prompt, alone on its GPUs, as far as their speed is known."""
    speeds = _speeds(plan)
    return {name: 1 / each.step_s(1, PROMPT_TOKENS + ANSWER_TOKENS // 2) for name, each in speeds.items()}


def _speeds(plan: Plan) -> dict[str, Speed]:
    devices = {device.index: device for device in plan.machine.devices}
    found = {
        name: speed(footprint, [devices[gpu] for gpu in plan.placed[name].gpus])
        for name, footprint in plan.footprints.items()
        if name in plan.placed
    }
    return {name: each for name, each in found.items() if each is not None}


def _estimate(config: Config, ensemble: Ensemble, plan: Plan) -> Estimate | None:
    members, judge = _members(config, ensemble), _judge(config, ensemble)
    seats = [*members, *judge]
    one_of = {name: config.servers_of([name])[0] for name, _ in seats}
    here = [name for name, server in one_of.items() if server in plan.placed]
    if not here:
        return None
    room = {
        name: sum(
            _runs_at_once(plan, server, [seat for each, seat in seats if each == name])
            for server in config.servers_of([name])
        )
        for name in here
    }
    tightest = min(room, key=lambda name: room[name])
    longest = {name: max(seat.tokens for each, seat in seats if each == name) for name in here}
    short = {name: need for name, need in longest.items() if need > plan.placed[one_of[name]].max_model_len}
    speeds = {} if plan.turns else _speeds(plan)
    is_known = all(server in speeds for server in one_of.values())
    # As if one replica had all calls of a run that is alone.
    panel, judge = ([(one_of[name], seat) for name, seat in part] for part in (members, judge))
    panel_s = ensemble.layers * _together_s(plan, speeds, panel) if is_known else None
    judge_s = _together_s(plan, speeds, judge) if is_known else None
    return Estimate(room[tightest], tightest, panel_s, judge_s, short)


def _members(config: Config, ensemble: Ensemble) -> list[tuple[str, _Seat]]:
    """The calls for one round of the panel, each with its model."""
    return [(config.host_of[each.model], _Seat(PROMPT_TOKENS, ANSWER_TOKENS, each.samples)) for each in ensemble.seats]


def _judge(config: Config, ensemble: Ensemble) -> list[tuple[str, _Seat]]:
    judge = ensemble.planned_judge_of(ensemble)
    if judge is None:
        return []
    host, samples = config.host_of[judge.model], sum(seat.samples for seat in ensemble.seats)
    if not config.models_by_name[judge.model].capabilities.writes:
        return [(host, _Seat(PROMPT_TOKENS + ANSWER_TOKENS, 0))] * samples
    strategy = STRATEGIES[ensemble.strategy]
    analysis = ANALYSIS_TOKENS if strategy.judge_writes and ensemble.analysis == "before" else 0
    written = analysis + ANSWER_TOKENS if strategy.judge_writes else 1
    return [(host, _Seat(PROMPT_TOKENS + samples * ANSWER_TOKENS, written))]


def _runs_at_once(plan: Plan, name: str, seats: Iterable[_Seat]) -> float:
    """By the KV cache that a run takes at its fullest, where the model keeps one, and by `max_num_seqs`."""
    placed, footprint = plan.placed[name], plan.footprints[name]
    pool = footprint.pool(len(placed.gpus))
    run_bytes, sequences = 0, 0
    for seat in seats:
        # A longer text is cut, or refused.
        run_bytes += pool.sequence_bytes(min(seat.tokens, placed.max_model_len))
        run_bytes += (seat.samples - 1) * pool.sequence_bytes(seat.written)
        sequences += seat.samples
    by_sequences = footprint.model.max_num_seqs / sequences
    return min(placed.kv_cache_bytes / run_bytes, by_sequences) if run_bytes else by_sequences


def _together_s(plan: Plan, speeds: Mapping[str, Speed], seats: Iterable[tuple[str, _Seat]]) -> float:
    """The time of calls that begin at once: engines on the same GPU take turns, and the calls to one engine share its steps."""
    by_model: dict[str, list[_Seat]] = {}
    for name, seat in seats:
        by_model.setdefault(name, []).append(seat)
    by_gpu: dict[int, float] = {}
    for name, own in by_model.items():
        took_s = _engine_s(speeds[name], own)
        for gpu in plan.placed[name].gpus:
            by_gpu[gpu] = by_gpu.get(gpu, 0.0) + took_s
    return max(by_gpu.values(), default=0.0)


def _engine_s(engine: Speed, seats: list[_Seat]) -> float:
    written = max(seat.written for seat in seats)
    tokens = max(seat.prompt for seat in seats) + written // 2
    reading_s = sum(engine.prompt_s(seat.prompt) for seat in seats)
    return reading_s + written * engine.step_s(sum(seat.samples for seat in seats), tokens)
