"""A body that is refused for its size is not read in one piece, in which no other thread runs: the event loop waits for it, too."""

import json
import threading
import time
from collections.abc import Callable

import pytest

from cappella.config.limits import Limits
from cappella.errors import RequestError
from cappella.gateway.validation import checked_json

MAX_PIECE_S = 0.1
BODIES = {
    "texts of brackets": {"x": ["["] * 700_000},
    "members": {"x": {f"f{number}": "a" for number in range(250_000)}},
    "lists": {"x": [[1]] * 600_000},
}


def longest_piece_s(work: Callable[[], object]) -> float:
    """The most CPU time that the work took while this other thread could not run."""
    ended = threading.Event()

    def run() -> None:
        work()
        ended.set()

    worker = threading.Thread(target=run)
    worker.start()
    assert worker.ident
    clock, longest, before = time.pthread_getcpuclockid(worker.ident), 0.0, 0.0
    while not ended.is_set():
        try:
            now = time.clock_gettime(clock)
        except OSError:
            break
        longest, before = max(longest, now - before), now
        time.sleep(0.0005)
    worker.join()
    return longest


@pytest.mark.parametrize("kind", BODIES)
def test_what_is_too_large_is_refused_piece_by_piece(kind: str) -> None:
    body = json.dumps(BODIES[kind]).encode()

    def refuse() -> None:
        with pytest.raises(RequestError) as refused:
            checked_json(body, Limits())
        assert refused.value.code == "too_large"

    # The least of several: on a busy machine this thread is late by itself.
    assert min(longest_piece_s(refuse) for _ in range(4)) < MAX_PIECE_S


@pytest.mark.parametrize(
    "body",
    [
        {"x": '"[{' * 300_000},
        {"x": ["["] * 99_000},
        {"x": {f"{number}:": "[" for number in range(99_000)}},
        {"x": 'a "quoted" word \\ ' * 150_000},
    ],
    ids=["one text of brackets", "texts", "members", "one text of quotes"],
)
def test_what_is_within_the_limits_is_read(body: dict[str, object]) -> None:
    data = json.dumps(body).encode()
    assert checked_json(data, Limits()) == (body, data)
