"""What is left of a start, as the last one tells it: believable, never negative, and no harm in what cannot be read."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cappella.engines import start_times
from cappella.engines.start_times import MAX_KEPT, ORDER, Countdown, StartTimes
from cappella.engines.status import EngineStatus
from support.fake_engines import eventually
from support.stub_lifecycle import Stub, running_lifecycle

LAST = {"importing vLLM": 4.0, "loading weights": 10.0, "answering a first token": 2.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(start_times, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_what_is_left_is_counted_down(clock: list[float]) -> None:
    countdown = Countdown(LAST)
    told = []
    for stage, after_s in (
        ("importing vLLM", 1.0),
        ("importing vLLM", 5.0),  # late
        ("reading the model's config", 1.0),  # which the last start was too quick to show
        ("loading weights", 0.0),
        ("loading weights", 4.0),
        ("answering a first token", 0.5),  # early
        ("answering a first token", 1.0),
        ("answering a first token", 9.0),
    ):
        clock[0] += after_s
        told.append(countdown.left_s(stage))
    assert told == [15.0, 12.0, 12.0, 12.0, 8.0, 2.0, 1.0, 0.0]


def test_nothing_is_said_of_a_first_start(clock: list[float]) -> None:
    countdown = Countdown(None)
    clock[0] += 3
    assert countdown.left_s("loading weights") is None
    clock[0] += 2
    assert countdown.left_s("starting the server") is None
    assert countdown.took_s == dict.fromkeys(ORDER, 0.0) | {"importing vLLM": 3.0, "loading weights": 2.0}


def test_each_model_has_its_own_and_those_unused_for_long_go(tmp_path: Path) -> None:
    file = tmp_path / "state" / "start-times.json"
    for number in range(MAX_KEPT):
        StartTimes(file, f"model {number}").keep({"loading weights": number})
    StartTimes(file, "model 0").keep(LAST)
    StartTimes(file, "another").keep(LAST)
    assert StartTimes(file, "model 0").last() == LAST
    assert StartTimes(file, "model 1").last() is None
    assert StartTimes(file, "model 2").last() == {"loading weights": 2}
    assert len(json.loads(file.read_text())) == MAX_KEPT
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', '{"m": 3}', '{"m": {"a": "b"}}', '{"m": {"a": -1}}', '{"m": {"a": NaN}}', "\ud800"]
)
def test_what_cannot_be_read_is_not_known_and_written_anew(tmp_path: Path, text: str) -> None:
    file = tmp_path / "start-times.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    times = StartTimes(file, "m")
    assert times.last() is None
    times.keep(LAST)
    assert times.last() == LAST


def test_what_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    times = StartTimes(tmp_path / "file" / "start-times.json", "m")
    times.keep(LAST)
    assert times.last() is None


def test_what_is_left_is_said_in_words() -> None:
    said = [EngineStatus("ann", stage="loading weights", remaining_s=s).summary for s in (None, 0.0, 0.2, 61.0)]
    assert said == ["loading weights"] * 2 + ["loading weights, about 1 s left", "loading weights, about 61 s left"]


async def test_a_start_is_remembered_and_the_next_one_is_counted_down(tmp_path: Path) -> None:
    times = StartTimes(tmp_path / "start-times.json", "ann")
    async with running_lifecycle(tmp_path / "first", start_times=times) as stub:
        assert await stub.ready()
        assert stub.engine.status.remaining_s is None
        took_s = times.last()
        assert took_s
        assert sum(took_s.values()) > 0
        # A second life in one server is no measure of the start of a server.
        await stub.lifecycle.restart()
        assert await stub.ready()
        assert times.last() == took_s
    times.keep({**took_s, "answering a first token": 100.0})
    async with running_lifecycle(tmp_path / "second", start_times=times) as stub:
        assert await eventually(lambda: _left(stub) is not None, 20)
        assert 100 <= (_left(stub) or 0) < 130
        assert await stub.ready()
        assert _left(stub) is None


def _left(stub: Stub) -> float | None:
    return stub.engine.status.remaining_s
