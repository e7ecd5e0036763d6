"""The remaining time of a start, estimated from the last one: never negative, and harmless if the file is unreadable."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cappella.engines import start_times
from cappella.engines.backends import STARTUP_STAGES
from cappella.engines.start_times import MAX_MODELS, Countdown, StartTimes
from cappella.engines.status import EngineStatus
from support.fake_engines import eventually
from support.stub_lifecycle import Stub, running_stub

STAGES = STARTUP_STAGES.names
LAST = {"importing vLLM": 4.0, "loading weights": 10.0, "answering a first token": 2.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(start_times, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_the_remaining_time_is_counted_down(clock: list[float]) -> None:
    countdown = Countdown(STAGES, LAST)
    estimates = []
    for stage, after_s in (
        ("importing vLLM", 1.0),
        ("importing vLLM", 5.0),  # late
        ("reading the model's config", 1.0),  # which the last start was too fast to show
        ("loading weights", 0.0),
        ("loading weights", 4.0),
        ("answering a first token", 0.5),  # early
        ("answering a first token", 1.0),
        ("answering a first token", 9.0),
    ):
        clock[0] += after_s
        estimates.append(countdown.remaining_s(stage))
    assert estimates == [15.0, 12.0, 12.0, 12.0, 8.0, 2.0, 1.0, 0.0]


def test_a_first_start_has_no_estimate(clock: list[float]) -> None:
    countdown = Countdown(STAGES, None)
    clock[0] += 3
    assert countdown.remaining_s("loading weights") is None
    clock[0] += 2
    assert countdown.remaining_s("starting the server") is None
    assert countdown.seconds_by_stage == dict.fromkeys(STAGES, 0.0) | {"importing vLLM": 3.0, "loading weights": 2.0}


def test_each_model_has_its_own_times_and_the_oldest_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "state" / "start-times.json"
    for number in range(MAX_MODELS):
        StartTimes(file, f"model {number}").save({"loading weights": number})
    StartTimes(file, "model 0").save(LAST)
    StartTimes(file, "another").save(LAST)
    assert StartTimes(file, "model 0").last() == LAST
    assert StartTimes(file, "model 1").last() is None
    assert StartTimes(file, "model 2").last() == {"loading weights": 2}
    assert len(json.loads(file.read_text())) == MAX_MODELS
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', '{"m": 3}', '{"m": {"a": "b"}}', '{"m": {"a": -1}}', '{"m": {"a": NaN}}', "\ud800"]
)
def test_an_unreadable_file_counts_as_empty_and_is_rewritten(tmp_path: Path, text: str) -> None:
    file = tmp_path / "start-times.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    times = StartTimes(file, "m")
    assert times.last() is None
    times.save(LAST)
    assert times.last() == LAST


def test_a_failed_write_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    times = StartTimes(tmp_path / "file" / "start-times.json", "m")
    times.save(LAST)
    assert times.last() is None


def test_the_summary_has_the_remaining_time() -> None:
    summaries = [EngineStatus("ann", stage="loading weights", remaining_s=s).summary for s in (None, 0.0, 0.2, 61.0)]
    assert summaries == ["loading weights"] * 2 + [
        "loading weights, about 1 s left",
        "loading weights, about 61 s left",
    ]


async def test_a_start_is_saved_and_the_next_one_is_counted_down(tmp_path: Path) -> None:
    times = StartTimes(tmp_path / "start-times.json", "ann")
    async with running_stub(tmp_path / "first", start_times=times) as stub:
        assert await stub.ready()
        assert stub.engine.status.remaining_s is None
        seconds = times.last()
        assert seconds
        assert sum(seconds.values()) > 0
        # A second launch is faster than the start of a server, and is not saved.
        await stub.lifecycle.restart()
        assert await stub.ready()
        assert times.last() == seconds
    times.save({**seconds, "answering a first token": 100.0})
    async with running_stub(tmp_path / "second", start_times=times) as stub:
        assert await eventually(lambda: _remaining_s(stub) is not None, 20)
        assert 100 <= (_remaining_s(stub) or 0) < 130
        assert await stub.ready()
        assert _remaining_s(stub) is None


def _remaining_s(stub: Stub) -> float | None:
    return stub.engine.status.remaining_s
