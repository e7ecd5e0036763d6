"""The placement plan: which model lies on which GPUs with how many bytes, computed before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from cappella.config import Config
from cappella.errors import DoesNotFit
from cappella.placement import packing, sharing
from cappella.placement.footprint import Footprint
from cappella.placement.machine import Machine
from cappella.placement.overhead import CPU_SHARED_BYTES
from cappella.placement.packing import Item, Spans
from cappella.placement.sharing import CacheDemand

RESERVE = 0.03
"""The share of each GPU that is left free, because allocators leave gaps."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One engine: its GPUs by index, and its bytes on each. `turn` is None for an engine that never sleeps.

    `sequences` of `max_model_len`, which the plan chose if the config names none, fit its KV cache; `why` is
    the reason for its GPUs, `dtype` what it computes in. One that is `text_only` could take images, and is started
    without, as `images: false` says; `takes_images` is one that is started with them.
    """

    model: str
    gpus: tuple[int, ...]
    weight_bytes: int
    overhead_bytes: int
    kv_cache_bytes: int
    max_model_len: int
    sequences: float
    step_tokens: int
    why: str
    turn: int | None = None
    dtype: str = "auto"
    text_only: bool = False
    takes_images: bool = False

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.overhead_bytes + self.kv_cache_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """The placement of all models of a config on one machine. Models with the same `turn` are awake together.

    `footprints` are what it was made from. Both have one entry for each replica of a model, by its name.
    """

    machine: Machine
    placed: Mapping[str, Placed]
    footprints: Mapping[str, Footprint] = field(default_factory=dict, repr=False)

    @property
    def turns(self) -> list[list[str]]:
        count = max((each.turn + 1 for each in self.placed.values() if each.turn is not None), default=0)
        return [[name for name, each in self.placed.items() if each.turn == turn] for turn in range(count)]

    def on(self, gpu: int, turn: int | None) -> list[Placed]:
        """The engines that are awake on a GPU during a turn."""
        return [each for each in self.placed.values() if gpu in each.gpus and each.turn in (None, turn)]


def place(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Plan:
    """The plan for these footprints: all models at once, or by turns if the config allows swapping. Raises DoesNotFit."""
    footprints, resident = _of_replicas(config, footprints), _resident(config)
    turns = _turns(config, footprints, machine, resident)
    if turns is None:
        raise _does_not_fit(footprints, machine)
    out: dict[str, Placed] = {}
    for number, spans in enumerate(turns):
        awake = {name: span for name, span in spans.items() if len(turns) == 1 or name in resident}
        shares = _shares(config, footprints, _awake_bytes(config, footprints, machine, resident, len(turns)), spans)
        for name, span in spans.items():
            turn = None if name in awake else number
            kv_bytes = min(shares[name], out[name].kv_cache_bytes) if name in out else shares[name]
            out[name] = _placed(footprints[name], span, kv_bytes, turn, machine)
    return Plan(machine, {name: out[name] for name in config.servers_of(config.models)}, footprints)


def _of_replicas(config: Config, footprints: Mapping[str, Footprint]) -> dict[str, Footprint]:
    """The footprint of each engine, from that of each model."""
    servers = ((server, name) for name in footprints for server in config.models[name].servers(name))
    return {server: replace(footprints[name], name=server) for server, name in servers}


def _resident(config: Config) -> frozenset[str]:
    """The models that never sleep: judges, and those that the config pins to GPUs."""
    pinned = {name for name, model in config.local.items() if model.gpus}
    return frozenset(config.servers_of((config.judges & config.local.keys()) | pinned))


def available_bytes(machine: Machine) -> list[int]:
    """Bytes of each device that a plan may use."""
    shared = 0 if machine.gpu else CPU_SHARED_BYTES
    return [int(device.free_bytes * (1 - RESERVE)) - shared for device in machine.devices]


def _awake_bytes(
    config: Config, footprints: Mapping[str, Footprint], machine: Machine, resident: frozenset[str], turns: int
) -> list[int]:
    """Bytes of each device for awake engines, while all others sleep on it."""
    others = [each for name, each in footprints.items() if name not in resident]
    kept = partial(Footprint.asleep_bytes, keeps_graphs=not config.placement.sleepers_free_graphs)
    asleep = sum(kept(each, min(each.splits)) for each in others) if machine.gpu and turns > 1 else 0
    return [size - asleep for size in available_bytes(machine)]


def _turns(
    config: Config, footprints: Mapping[str, Footprint], machine: Machine, resident: frozenset[str]
) -> list[Spans] | None:
    """One set of spans for all models; or, with swap, one per turn, with the residents on the same GPUs in each."""
    capacities = available_bytes(machine)
    everything = packing.pack([_item(each, machine) for each in footprints.values()], capacities, machine.nodes)
    if everything is not None:
        return [everything]
    if not config.placement.swap:
        return None
    waiting = [each for name, each in footprints.items() if name not in resident]
    largest = max(waiting, key=_size_bytes, default=None)
    # Residents are placed so that the largest of the others fits beside them.
    beside = [footprints[name] for name in sorted(resident)] + ([largest] if largest else [])
    left = _awake_bytes(config, footprints, machine, resident, turns=2)
    together = packing.pack([_item(each, machine) for each in beside], left, machine.nodes)
    if together is None:
        return None
    fixed = {name: span for name, span in together.items() if name in resident}
    for name, span in fixed.items():
        for gpu in span:
            left[gpu] -= footprints[name].min_bytes(len(span))
    return _in_turns(waiting, fixed, left, machine)


def _in_turns(waiting: Sequence[Footprint], fixed: Spans, left: Sequence[int], machine: Machine) -> list[Spans] | None:
    """Turns that start with the largest waiting model, filled with others that fit beside it."""
    turns: list[Spans] = []
    queue = sorted(waiting, key=_size_bytes, reverse=True)
    while queue:
        spans: Spans | None = None
        chosen: list[Footprint] = []
        for each in queue:
            tried = packing.pack([_item(one, machine) for one in [*chosen, each]], left, machine.nodes)
            if tried is not None:
                chosen, spans = [*chosen, each], tried
        if spans is None:
            return None
        turns.append({**fixed, **spans})
        queue = [each for each in queue if each not in chosen]
    return turns


def _size_bytes(footprint: Footprint) -> int:
    return min(footprint.min_bytes(n) * n for n in footprint.splits)


def _item(footprint: Footprint, machine: Machine) -> Item:
    pinned = None
    if footprint.model.gpus is not None:
        positions = {device.index: position for position, device in enumerate(machine.devices)}
        pinned = tuple(positions[gpu] for gpu in footprint.model.gpus if gpu in positions)
    return Item(footprint.name, {n: footprint.min_bytes(n) for n in footprint.splits}, pinned)


def _shares(
    config: Config, footprints: Mapping[str, Footprint], free_bytes: Sequence[int], spans: Spans
) -> Mapping[str, int]:
    """The KV cache of each model: as configured, else a share of the remaining memory by its tokens per run."""
    left = list(free_bytes)
    demands: list[CacheDemand] = []
    model_of = config.model_of
    for name, span in spans.items():
        footprint = footprints[name]
        for gpu in span:
            left[gpu] -= footprint.min_bytes(len(span))
        if footprint.model.kv_cache_bytes is None:
            sequence = footprint.sequence_bytes(len(span))
            tokens = tokens_per_run(config, model_of[name]) / footprint.model.replicas
            weight = tokens * sequence / footprint.model.context_tokens
            demands.append(CacheDemand(name, span, weight, sequence * (footprint.model.max_num_seqs - 1)))
    added = sharing.share(demands, left)
    return {
        name: _whole_blocks(footprints[name], len(span), footprints[name].kv_bytes(len(span)) + added.get(name, 0))
        for name, span in spans.items()
    }


def _whole_blocks(footprint: Footprint, gpus: int, size_bytes: int) -> int:
    block = footprint.pool(gpus).block_bytes
    return size_bytes if footprint.model.kv_cache_bytes or not block else size_bytes // block * block


def tokens_per_run(config: Config, model: str) -> int:
    """A model's cached tokens for one run of each ensemble, in units of a prompt or an answer."""
    total, names = 0, set(config.names_of([model]))
    for ensemble in config.ensembles.values():
        answers = sum(seat.samples for seat in ensemble.seats)
        total += sum(1 + seat.samples for seat in ensemble.seats if seat.model in names)
        judge = ensemble.planned_judge_of(ensemble)
        total += (2 + answers) * (judge is not None and judge.model in names)
    return max(1, total)


def _placed(footprint: Footprint, span: tuple[int, ...], kv_bytes: int, turn: int | None, machine: Machine) -> Placed:
    count = len(span)
    return Placed(
        model=footprint.name,
        gpus=tuple(machine.devices[position].index for position in span),
        weight_bytes=footprint.weight_bytes(count),
        overhead_bytes=footprint.overhead_bytes(count),
        kv_cache_bytes=kv_bytes,
        max_model_len=footprint.model.context_tokens,
        sequences=_sequences(footprint, count, kv_bytes),
        step_tokens=footprint.step_tokens,
        why=_why(footprint, count, turn),
        turn=turn,
        dtype=footprint.model.dtype,
        text_only=footprint.text_only,
        takes_images=footprint.architecture.vision,
    )


def _sequences(footprint: Footprint, gpus: int, kv_bytes: int) -> float:
    """How many have room; an encoder keeps nothing of them."""
    size_bytes = footprint.sequence_bytes(gpus)
    return kv_bytes / size_bytes if size_bytes else float(footprint.model.max_num_seqs)


def _why(footprint: Footprint, count: int, turn: int | None) -> str:
    if footprint.model.gpus is not None:
        return "pinned"
    if turn is not None:
        return f"turn {turn + 1}"
    if not footprint.machine.gpu:
        return "no GPU"
    if count == 1:
        return "fits one GPU"
    smaller = [n for n in footprint.splits if n < count]
    return f"too large for {smaller[-1]}" if smaller else "split as configured"


def _does_not_fit(footprints: Mapping[str, Footprint], machine: Machine) -> DoesNotFit:
    sizes = {name: _size_bytes(each) for name, each in footprints.items()}
    parts = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in sizes.items())
    total, free = sum(sizes.values()), sum(available_bytes(machine))
    problem = f"they need at least {total / 2**30:.1f} GiB ({parts}), and {free / 2**30:.1f} GiB are available"
    if total <= free:
        problem += ", but no GPU or legal split has enough for the remaining ones"
        problem += "; a model is never split over two nodes" * machine.is_cluster
    return DoesNotFit("models", problem, "Use fewer or smaller models")
