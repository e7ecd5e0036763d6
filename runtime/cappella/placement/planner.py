"""Which model lies where, and with how much: from a config and a machine to a plan, before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cappella.config import Config
from cappella.errors import DoesNotFit
from cappella.placement import packing, sharing
from cappella.placement.footprint import Footprint
from cappella.placement.machine import Machine
from cappella.placement.overhead import CPU_SHARED_BYTES
from cappella.placement.packing import Item, Spans
from cappella.placement.sharing import CacheDemand

RESERVE = 0.03
"""The share of each GPU that no plan gives away: allocators leave gaps."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One engine: its GPUs, by their index, and its bytes on each of them. `turn` is None for one that stays awake."""

    model: str
    gpus: tuple[int, ...]
    weight_bytes: int
    overhead_bytes: int
    kv_cache_bytes: int
    sequences: float
    step_tokens: int
    why: str
    turn: int | None = None

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.overhead_bytes + self.kv_cache_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """Every model of a config in one machine's memory. Models with the same `turn` are awake together."""

    machine: Machine
    placed: Mapping[str, Placed]

    @property
    def turns(self) -> list[list[str]]:
        count = max((each.turn + 1 for each in self.placed.values() if each.turn is not None), default=0)
        return [[name for name, each in self.placed.items() if each.turn == turn] for turn in range(count)]

    def on(self, gpu: int, turn: int | None) -> list[Placed]:
        """The engines that are awake on a GPU in a turn."""
        return [each for each in self.placed.values() if gpu in each.gpus and each.turn in (None, turn)]


def placed(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Plan:
    """The plan of models whose sizes are known: all at once, or in turns if the config allows it. Raises DoesNotFit."""
    resident = _resident(config)
    turns = _turns(config, footprints, machine, resident)
    if turns is None:
        raise _does_not_fit(footprints, machine)
    out: dict[str, Placed] = {}
    for number, spans in enumerate(turns):
        staying = {name: span for name, span in spans.items() if len(turns) == 1 or name in resident}
        shares = _shares(config, footprints, _rooms_awake(footprints, machine, resident, len(turns)), spans)
        for name, span in spans.items():
            turn = None if name in staying else number
            kv_bytes = min(shares[name], out[name].kv_cache_bytes) if name in out else shares[name]
            out[name] = _placed(footprints[name], span, kv_bytes, turn, machine)
    return Plan(machine, {name: out[name] for name in config.models})


def _resident(config: Config) -> frozenset[str]:
    """Judges, and what the config pins: they never sleep."""
    return (config.judges & config.local.keys()) | {name for name, model in config.local.items() if model.gpus}


def rooms(machine: Machine) -> list[int]:
    """Bytes of each device that a plan may give away."""
    shared = 0 if machine.gpu else CPU_SHARED_BYTES
    return [int(device.free_bytes * (1 - RESERVE)) - shared for device in machine.devices]


def _rooms_awake(
    footprints: Mapping[str, Footprint], machine: Machine, resident: frozenset[str], turns: int
) -> list[int]:
    """Bytes of each device for those who are awake, if every other one sleeps there."""
    others = [found for name, found in footprints.items() if name not in resident]
    kept = sum(found.residue_bytes(min(found.splits)) for found in others) if machine.gpu and turns > 1 else 0
    return [room - kept for room in rooms(machine)]


def _turns(
    config: Config, footprints: Mapping[str, Footprint], machine: Machine, resident: frozenset[str]
) -> list[Spans] | None:
    """One set of spans for all; or, with swap, one for each turn, and the residents in all of them alike."""
    capacities = rooms(machine)
    everything = packing.pack([_item(each, machine) for each in footprints.values()], capacities)
    if everything is not None:
        return [everything]
    if not config.placement.swap:
        return None
    waiting = [found for name, found in footprints.items() if name not in resident]
    largest = max(waiting, key=_size_bytes, default=None)
    # Residents lie where the largest of the others has room beside them.
    beside = [footprints[name] for name in sorted(resident)] + ([largest] if largest else [])
    together = packing.pack([_item(each, machine) for each in beside], _rooms_awake(footprints, machine, resident, 2))
    if together is None:
        return None
    fixed = {name: span for name, span in together.items() if name in resident}
    left = _rooms_awake(footprints, machine, resident, turns=2)
    for name, span in fixed.items():
        for gpu in span:
            left[gpu] -= footprints[name].least_bytes(len(span))
    return _in_turns(waiting, fixed, left, machine)


def _in_turns(waiting: Sequence[Footprint], fixed: Spans, left: Sequence[int], machine: Machine) -> list[Spans] | None:
    """The largest first, each turn filled with whatever else fits beside it."""
    turns: list[Spans] = []
    queue = sorted(waiting, key=_size_bytes, reverse=True)
    while queue:
        spans: Spans | None = None
        chosen: list[Footprint] = []
        for each in queue:
            tried = packing.pack([_item(one, machine) for one in [*chosen, each]], left)
            if tried is not None:
                chosen, spans = [*chosen, each], tried
        if spans is None:
            return None
        turns.append({**fixed, **spans})
        queue = [each for each in queue if each not in chosen]
    return turns


def _size_bytes(found: Footprint) -> int:
    return min(found.least_bytes(n) * n for n in found.splits)


def _item(found: Footprint, machine: Machine) -> Item:
    only = None
    if found.model.gpus is not None:
        positions = {device.index: position for position, device in enumerate(machine.devices)}
        only = tuple(positions[gpu] for gpu in found.model.gpus if gpu in positions)
    return Item(found.name, {n: found.least_bytes(n) for n in found.splits}, only)


def _shares(
    config: Config, footprints: Mapping[str, Footprint], room_bytes: Sequence[int], spans: Spans
) -> Mapping[str, int]:
    """The KV cache of each model: what the config says, else what is left, by the tokens that its runs bring it."""
    left = list(room_bytes)
    demands: list[CacheDemand] = []
    for name, span in spans.items():
        found = footprints[name]
        for gpu in span:
            left[gpu] -= found.least_bytes(len(span))
        if found.model.kv_cache_bytes is None:
            sequence = found.sequence_bytes(len(span))
            weight = tokens_per_run(config, name) * sequence / found.model.max_model_len
            demands.append(CacheDemand(name, span, weight, sequence * (found.model.max_num_seqs - 1)))
    grown = sharing.share(demands, left)
    return {
        name: _whole_blocks(footprints[name], len(span), footprints[name].kv_bytes(len(span)) + grown.get(name, 0))
        for name, span in spans.items()
    }


def _whole_blocks(found: Footprint, gpus: int, size_bytes: int) -> int:
    block = found.pool(gpus).block_bytes
    return size_bytes if found.model.kv_cache_bytes or not block else size_bytes // block * block


def tokens_per_run(config: Config, model: str) -> int:
    """Tokens that a model keeps for one run of each ensemble, where a prompt and an answer count one each."""
    total, names = 0, set(config.hosted([model]))
    for ensemble in config.ensembles.values():
        answers = sum(seat.samples for seat in ensemble.seats)
        total += sum(1 + seat.samples for seat in ensemble.seats if seat.model in names)
        total += (2 + answers) * (ensemble.judge.model in names)
    return max(1, total)


def _placed(found: Footprint, span: tuple[int, ...], kv_bytes: int, turn: int | None, machine: Machine) -> Placed:
    count = len(span)
    return Placed(
        model=found.name,
        gpus=tuple(machine.devices[position].index for position in span),
        weight_bytes=found.weight_bytes(count),
        overhead_bytes=found.overhead_bytes(count),
        kv_cache_bytes=kv_bytes,
        sequences=kv_bytes / max(1, found.sequence_bytes(count)),
        step_tokens=found.step_tokens,
        why=_why(found, count, turn),
        turn=turn,
    )


def _why(found: Footprint, count: int, turn: int | None) -> str:
    if found.model.gpus is not None:
        return "pinned"
    if turn is not None:
        return f"turn {turn + 1}"
    if count == 1:
        return "fits whole" if found.machine.gpu else "no GPU"
    smaller = [n for n in found.splits if n < count]
    return f"too large for {smaller[-1]}" if smaller else "split as asked"


def _does_not_fit(footprints: Mapping[str, Footprint], machine: Machine) -> DoesNotFit:
    sizes = {name: _size_bytes(each) for name, each in footprints.items()}
    parts = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in sizes.items())
    total, free = sum(sizes.values()), sum(rooms(machine))
    problem = f"they need at least {total / 2**30:.1f} GiB ({parts}), and {free / 2**30:.1f} GiB can be given"
    if total <= free:
        problem += ", but no GPU, nor a legal split, has room for the rest of them"
    return DoesNotFit("models", problem, "Take fewer or smaller models")
