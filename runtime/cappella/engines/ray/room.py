"""Which node takes an engine: that of the plan, or where that has left the cluster, another one with room."""

from collections.abc import Collection
from dataclasses import dataclass

from cappella.placement import planner
from cappella.placement.planner import Plan


@dataclass(frozen=True, slots=True)
class Place:
    """A node, and the engine's GPUs by their index there; no GPUs on a node without any."""

    node: str
    gpus: tuple[int, ...]


class Room:
    """The memory of a cluster's devices, and which engine takes how much of it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._capacity = dict(
            zip((each.index for each in plan.machine.devices), planner.available_bytes(plan.machine), strict=True)
        )
        self._taken = {name: placed.gpus for name, placed in plan.placed.items()}

    def place(self, model: str, alive: Collection[str]) -> Place | None:
        """Take a place for an engine on one of these nodes, instead of the one that it had; None if none has room."""
        del self._taken[model]
        planned = self._plan.placed[model].gpus
        choices = [planned, *(found for node in alive if (found := self._emptiest(model, node)))]
        fitting = [gpus for gpus in choices if self._node(gpus) in alive and self._fits(model, gpus)]
        # The planned place, whenever it is there.
        chosen = planned if planned in fitting else max(fitting, key=self._left_bytes, default=planned)
        self._taken[model] = chosen
        return self._as_place(chosen) if fitting else None

    def _emptiest(self, model: str, node: str) -> tuple[int, ...] | None:
        """As many devices of the node as the engine has, those with the most room; None if there are fewer."""
        count = len(self._plan.placed[model].gpus)
        there = [each.index for each in self._plan.machine.devices if each.node == node]
        return tuple(sorted(sorted(there, key=self._free_bytes)[-count:])) if len(there) >= count else None

    def _fits(self, model: str, gpus: tuple[int, ...]) -> bool:
        return all(self._free_bytes(gpu) >= self._plan.placed[model].total_bytes for gpu in gpus)

    def _left_bytes(self, gpus: tuple[int, ...]) -> int:
        return min(map(self._free_bytes, gpus))

    def _free_bytes(self, gpu: int) -> int:
        taken = sum(self._plan.placed[name].total_bytes for name, gpus in self._taken.items() if gpu in gpus)
        return self._capacity[gpu] - taken

    def _node(self, gpus: tuple[int, ...]) -> str | None:
        return next(each.node for each in self._plan.machine.devices if each.index in gpus)

    def _as_place(self, gpus: tuple[int, ...]) -> Place:
        on = [each for each in self._plan.machine.devices if each.index in gpus]
        there = [each.index if each.index_there is None else each.index_there for each in on]
        return Place(on[0].node or "", tuple(there) if self._plan.machine.gpu else ())
