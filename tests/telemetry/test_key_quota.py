"""What is stored of one key has a limit: its oldest runs and responses go, and nothing of another key."""

import logging
import time
from pathlib import Path

import openai
import pytest

from cappella.auth.keys import KeyStore, Reader
from cappella.telemetry.response_store import Events, ResponseStore, StoredResponse
from cappella.telemetry.run_store import Row, RunStore
from support.fake_engines import FakeEngines, serving
from support.kept_gateway import ask, client, ended, hold, keeping
from support.strict_gateway import with_keys

MAX_BYTES = 200_000
LONG = "word " * 8000


def stored(name: str, key_id: str | None, age_s: float, status: str = "completed") -> StoredResponse:
    said = [{"text": f"{name} {LONG}"}]
    return StoredResponse(name, key_id, time.time() - age_s, status, said, {"id": name, "output": [], "status": status})


async def test_the_oldest_responses_and_runs_of_a_key_go_and_those_of_another_stay(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    config = with_keys(keeping(tmp_path, max_bytes_per_key=MAX_BYTES), tmp_path / "keys.sqlite")
    async with (
        serving(fake_engines, config) as url,
        client(url, keys.create("ann", ["run"])) as ann,
        client(url, keys.create("bob", ["run"])) as bob,
    ):
        other = await ask(bob, LONG)
        replies = [await ask(ann, LONG) for _ in range(8)]
        assert (await ann.responses.retrieve(replies[-1].id)).status == "completed"
        assert (await bob.responses.retrieve(other.id)).status == "completed"
        with pytest.raises(openai.NotFoundError):
            await ann.responses.retrieve(replies[0].id)
        with pytest.raises(openai.BadRequestError):
            await ask(ann, "And?", previous_response_id=replies[0].id)
        run_ids = [reply.to_dict()["fusion"]["run_id"] for reply in replies]
        (listed,) = [await ann.get("/../api/runs", cast_to=object)]
        assert isinstance(listed, dict)
        kept = {run["id"] for run in listed["data"]}
        assert run_ids[-1] in kept
        assert run_ids[0] not in kept


async def test_a_response_in_the_background_goes_when_it_has_ended_and_not_before(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    hold(fake_engines)
    async with serving(fake_engines, keeping(tmp_path, max_bytes_per_key=MAX_BYTES)) as url, client(url) as stock:
        first = await ask(stock, LONG, background=True)
        more = [await ask(stock, LONG, background=True) for _ in range(7)]
        assert (await stock.responses.retrieve(first.id)).status in ("queued", "in_progress")
        fake_engines.release()
        assert [(await ended(stock, each.id)).status for each in more[-2:]] == ["completed"] * 2
        with pytest.raises(openai.NotFoundError):
            await ended(stock, first.id)


async def test_of_what_goes_no_byte_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = RunStore(tmp_path / "runs.sqlite", 1, MAX_BYTES)
    responses = ResponseStore(store)
    await responses.create(lambda: stored("Zebrafinch", "ann", 9))
    responses.add_events("Zebrafinch", Events(0, 0, [b"x\n\n"]))
    store.add(Row("run-1", "ann", time.time() - 8, b'"Bellbird"', LONG.encode()))
    with caplog.at_level(logging.WARNING, "cappella"):
        for age_s in range(7, 0, -1):
            await responses.create(lambda age_s=age_s: stored(f"Lyrebird-{age_s}", "ann", age_s))  # type: ignore[misc]
    assert await store.recent(9, Reader(True, None)) == []
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [name in files for name in (b"Zebrafinch", b"Bellbird", b"Lyrebird-1")] == [False, False, True]
    assert await responses.events("Zebrafinch", 0) is None
    assert len([each for each in caplog.records if "max_bytes_per_key" in each.message]) == 1
    store.close()


async def test_one_that_is_larger_than_the_limit_is_kept_until_the_next(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite", 1, 1000)
    responses = ResponseStore(store)
    for name in ("a", "b"):
        await responses.create(lambda name=name: stored(name, None, 1 if name == "a" else 0))  # type: ignore[misc]
        assert await responses.find(name, None)
    assert await responses.find("a", None) is None
    store.close()
