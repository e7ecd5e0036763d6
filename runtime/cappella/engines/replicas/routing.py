"""Chooses the replica for a call, and says whether a call that failed may be repeated on another."""

from collections.abc import Iterable
from itertools import count

import aiohttp

from cappella.engines.refusals import may_blame_request
from cappella.engines.replicas.prefixes import Blocks, Prefixes
from cappella.engines.replicas.replica import Replica
from cappella.errors import EngineBroke, EngineError, EngineGaveUp, EngineNotReady, EngineRejected

MIN_READ_SHARE = 0.5
MORE_BUSY_SHARE = 0.125
MAX_BREAKS = 2


class Router:
    """Chooses among replicas by these rules, in this order:

    1. Only a replica that accepts calls is chosen: it is ready, or asleep and would wake. While one is waking and has room,
       no other is woken.
    2. A call whose prompt begins as one that a replica has read of late goes there, if that beginning is at least half of
       the prompt (`MIN_READ_SHARE`), and the replica is not much busier than the least busy one: by at most an eighth of
       what it runs at once (`MORE_BUSY_SHARE`), or by one call if that is more.
    3. Any other goes to the replica with the least load (`Replica.load`), among equals to the one whose last call is longest ago.

    Whichever it is has read the prompt then, and counts for rule 2: a beginning that many prompts share is soon everywhere.
    """

    def __init__(self) -> None:
        self._prefixes = Prefixes()
        self._numbers = count()
        self._last_calls: dict[str, int] = {}

    def choose(self, replicas: Iterable[Replica], blocks: Blocks = ()) -> Replica | None:
        """The replica for a call with this prompt, which is noted; None if none accepts calls."""
        able = _able(replicas)
        least = self._least_busy(able)
        if least is None:
            return None
        chosen = self._reader(able, blocks, least.load) or least
        self._last_calls[chosen.name] = next(self._numbers)
        self._prefixes.add(blocks, chosen.name)
        return chosen

    def least_busy(self, replicas: Iterable[Replica]) -> Replica | None:
        """The one that a call of a new prompt would get now; None if none accepts calls."""
        return self._least_busy(_able(replicas))

    def _least_busy(self, able: Iterable[Replica]) -> Replica | None:
        return min(able, key=lambda each: (each.load, self._last_calls.get(each.name, -1)), default=None)

    def _reader(self, able: list[Replica], blocks: Blocks, least_load: float) -> Replica | None:
        length, names = self._prefixes.readers(blocks, {each.name for each in able})
        if not length or length < MIN_READ_SHARE * len(blocks):
            return None
        reader = min((each for each in able if each.name in names), key=lambda each: each.load)
        allowed = max(MORE_BUSY_SHARE, 1 / reader.max_num_seqs)
        return reader if reader.load <= least_load + allowed else None

    def forget(self, name: str) -> None:
        """Forget what a replica has read."""
        self._prefixes.forget(name)
        self._last_calls.pop(name, None)


def _able(replicas: Iterable[Replica]) -> list[Replica]:
    """Those that may be chosen."""
    able = [each for each in replicas if each.accepts_calls]
    if any(each.is_waking and each.has_room for each in able):
        return [each for each in able if each.is_waking or each.engine.status.state == "ready"]
    return able


class Tries:
    """The replicas on which one call was tried: each once at most.

    One that breaks several replicas after they have got it may be the cause: it is given up after `MAX_BREAKS` repetitions.
    """

    def __init__(self) -> None:
        self._failed: set[Replica] = set()
        self._error: EngineError | None = None
        self._breaks = 0

    def left(self, replicas: Iterable[Replica]) -> list[Replica]:
        """The replicas on which the call may still be tried. Raises the last error if none of them accepts calls."""
        left = [each for each in replicas if each not in self._failed and each.accepts_calls]
        if self._error and not left:
            raise self._error
        return left

    def failed(self, replica: Replica, error: EngineError) -> None:
        """Note that the call failed before its first token. Raises the error if the call must not be repeated."""
        self._breaks += isinstance(error, EngineBroke) and not _was_unreached(error)
        if not _is_the_servers_fault(error) or self._breaks > MAX_BREAKS:
            raise error
        self._failed.add(replica)
        self._error = error


def _is_the_servers_fault(error: EngineError) -> bool:
    """Whether the same call may succeed elsewhere."""
    if isinstance(error, EngineRejected):
        return not may_blame_request(error.status_code)
    return isinstance(error, EngineNotReady | EngineBroke) and not isinstance(error, EngineGaveUp)


def _was_unreached(error: EngineError) -> bool:
    return isinstance(error.__cause__, aiohttp.ClientConnectorError)
