"""Responses that are kept, as the stock client uses them: continued, read again, listed, deleted, and run in the background."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncOpenAI

from cappella.auth.keys import KeyStore, Reader
from cappella.ensemble import stream
from cappella.gateway import kept_responses
from cappella.telemetry import response_store
from cappella.telemetry.run_store import RunStore
from support.fake_engines import MEMBERS, FakeEngines, eventually, judge_script, serving
from support.kept_gateway import ask, client, ended, hold, keeping, kept
from support.recorded_gateway import recording_config
from support.scripted_engine import Script


@pytest.fixture
async def stock(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    async with kept(fake_engines, tmp_path) as stock:
        yield stock


def said_to(fake_engines: FakeEngines, name: str = "ann") -> list[tuple[str, Any]]:
    return [(each["role"], each["content"]) for each in fake_engines.servers[name].bodies[-1]["messages"]]


@pytest.mark.parametrize("more", [{}, {"store": True}, {"extra_body": {"fusion": {"include_events": True}}}])
async def test_a_response_is_read_again_as_it_was(stock: AsyncOpenAI, more: dict[str, Any]) -> None:
    reply = await ask(stock, metadata={"a": "b"}, **more)
    again: Any = await stock.responses.retrieve(reply.id)
    assert again.to_dict(warnings=False) == reply.to_dict(warnings=False)
    assert (again.store, again.background, again.previous_response_id) == (True, False, None)


async def test_a_streamed_response_is_read_again_as_its_last_event_had_it(stock: AsyncOpenAI) -> None:
    events = [event async for event in await ask(stock, stream=True)]
    last = events[-1].response
    assert (await stock.responses.retrieve(last.id)).to_dict() == last.to_dict()


async def test_a_conversation_goes_on_from_a_response_without_its_instructions(
    stock: AsyncOpenAI, fake_engines: FakeEngines
) -> None:
    fake_engines.let("judge", judge_script(Script(("Blue.",), reasoning="Hm.")))
    first = await ask(
        stock, "My name is Ann.", instructions="Be brief.", extra_body={"fusion": {"progress": "reasoning"}}
    )
    second = await ask(stock, [{"role": "user", "content": "And?"}], previous_response_id=first.id)
    assert second.previous_response_id == first.id
    begun = [("user", [{"type": "text", "text": "My name is Ann."}]), ("assistant", "Blue.")]
    assert said_to(fake_engines) == [*begun, ("user", "And?")]
    assert fake_engines.servers["ann"].bodies[-1]["messages"][1]["reasoning"] == "Hm."
    await ask(stock, "Who am I?", previous_response_id=second.id, instructions="Be rude.")
    more = [("user", [{"type": "text", "text": "And?"}]), ("assistant", "Blue."), ("user", "Who am I?")]
    assert said_to(fake_engines) == [("system", "Be rude."), *begun, *more]


async def test_a_tool_loop_goes_on_with_the_result_alone(stock: AsyncOpenAI, fake_engines: FakeEngines) -> None:
    tool: Any = {"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": False}
    call = Script((), calls=(("look_up", '{"name": "Ann"}'),), finish_reason="tool_calls")
    fake_engines.let("judge", call)
    wanted = {"model": "cappella/tools", "tools": [tool]}
    first = await ask(stock, "Who is Ann?", **wanted)
    fake_engines.let("judge", judge_script())
    result = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "A singer."}
    second = await ask(stock, [result], previous_response_id=first.id, **wanted)
    assert second.output_text == "The final answer"
    assert [role for role, _ in said_to(fake_engines)] == ["user", "assistant", "tool"]


async def test_items_are_named_instead_of_sent(stock: AsyncOpenAI, fake_engines: FakeEngines) -> None:
    first = await ask(stock)
    reference = {"type": "item_reference", "id": first.output[0].id}
    turns = [{"role": "user", "content": "Say hello."}, reference, {"role": "user", "content": "Again."}]
    await ask(stock, turns)
    assert said_to(fake_engines)[1] == ("assistant", "The final answer")
    with pytest.raises(openai.BadRequestError, match=r"input\.0\.type"):
        await ask(stock, [{**reference, "id": "msg_0-0"}, turns[0]])


async def test_the_whole_conversation_is_listed_page_by_page(stock: AsyncOpenAI) -> None:
    first = await ask(stock, "one")
    turns = [{"role": "user", "content": "two"}, {"role": "user", "content": "three"}]
    second = await ask(stock, turns, previous_response_id=first.id)
    listed: Any = stock.responses.input_items.list
    assert [text_of(item) async for item in listed(second.id, limit=1)] == ["three", "two", "The final answer", "one"]
    page = await listed(second.id, order="asc", limit=3)
    assert [text_of(item) for item in page.data] == ["one", "The final answer", "two"]
    assert page.has_more
    for bad in ({"limit": 101}, {"order": "up"}, {"after": "nothing"}):
        with pytest.raises(openai.BadRequestError, match=next(iter(bad))):
            await listed(second.id, **bad)


def text_of(item: Any) -> str:
    return str(item.content[0].text)


async def test_a_deleted_response_is_gone_and_those_after_it_go_on(stock: AsyncOpenAI) -> None:
    first = await ask(stock)
    second = await ask(stock, previous_response_id=first.id)
    await stock.responses.delete(first.id)
    for gone in (stock.responses.retrieve(first.id), stock.responses.delete(first.id)):
        with pytest.raises(openai.NotFoundError) as raised:
            await gone
        assert raised.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(stock, previous_response_id=first.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
    assert (await ask(stock, previous_response_id=second.id)).status == "completed"


async def test_nothing_is_kept_of_a_request_that_says_so(stock: AsyncOpenAI) -> None:
    reply = await ask(stock, store=False)
    assert reply.store is False
    with pytest.raises(openai.NotFoundError):
        await stock.responses.retrieve(reply.id)


async def test_an_error_in_what_is_sent_names_the_clients_own_place(stock: AsyncOpenAI) -> None:
    first = await ask(stock)
    for wrong, place in (({"role": "user", "content": 3}, "input.1.content"), ({"type": "odd"}, "input.1.type")):
        with pytest.raises(openai.BadRequestError) as raised:
            await ask(stock, [{"role": "user", "content": "a"}, wrong], previous_response_id=first.id)
        assert raised.value.param == place


async def test_a_conversation_may_not_grow_beyond_the_limits(stock: AsyncOpenAI) -> None:
    first = await ask(stock, "x" * 150_000)
    second = await ask(stock, "y" * 100_000, previous_response_id=first.id)
    with pytest.raises(openai.APIStatusError, match=r"server\.max_body_bytes") as raised:
        await ask(stock, previous_response_id=second.id)
    assert raised.value.status_code == 413
    many = [{"role": "user", "content": "a"}] * 1100
    third = await ask(stock, many)
    with pytest.raises(openai.BadRequestError, match=r"server\.limits\.messages"):
        await ask(stock, many, previous_response_id=third.id)


async def test_items_that_are_named_count_as_if_they_were_sent(stock: AsyncOpenAI, fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(("x" * 60_000,))))
    reference = {"type": "item_reference", "id": (await ask(stock)).output[0].id}
    with pytest.raises(openai.APIStatusError, match=r"server\.max_body_bytes") as raised:
        await ask(stock, [*[reference] * 4, {"role": "user", "content": "Again."}])
    assert (raised.value.status_code, raised.value.param) == (413, "input")
    assert (await ask(stock, [*[reference] * 3, {"role": "user", "content": "Again."}])).status == "completed"


NEEDING = [{"background": True}, {"previous_response_id": "resp_1"}]


@pytest.mark.parametrize("more", NEEDING, ids=lambda more: next(iter(more)))
@pytest.mark.parametrize("runs", [False, True])
async def test_where_no_content_is_kept_a_400_says_which_key_keeps_it(
    fake_engines: FakeEngines, gateway: str, tmp_path: Path, more: dict[str, Any], runs: bool
) -> None:
    async with serving(fake_engines, recording_config(tmp_path)) as url, client(url if runs else gateway) as stock:
        assert (await ask(stock)).store is False
        told = await ask(stock, store=True)
        assert (told.store, told.fusion["ignored"]) == (False, ["store"])
        with pytest.raises(openai.BadRequestError, match=r"server\.runs with content: true") as raised:
            await ask(stock, **more)
        assert raised.value.param == next(iter(more))
        with pytest.raises(openai.NotFoundError, match=r"server\.runs with content: true"):
            await stock.responses.retrieve("resp_1")


@pytest.mark.parametrize(
    ("more", "param"),
    [({"conversation": "conv_1"}, "conversation"), ({"background": True, "store": False}, "")],
)  # fmt: skip
async def test_what_is_not_done_is_refused_by_its_name(stock: AsyncOpenAI, more: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError, match=next(iter(more))) as raised:
        await ask(stock, **more)
    assert (raised.value.param or "") == param


@pytest.mark.parametrize("more", NEEDING[1:], ids=lambda more: next(iter(more)))
async def test_a_models_own_responses_are_not_kept(stock: AsyncOpenAI, more: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="ensembles"):
        await ask(stock, model="ann", **more)


async def test_a_key_sees_its_own_responses_only(fake_engines: FakeEngines, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    own, other, admin = keys.create("own", ["run"]), keys.create("other", ["run"]), keys.create("a", ["run", "admin"])
    config = keeping(tmp_path)
    config = config.model_copy(update={"server": config.server.model_copy(update={"keys": tmp_path / "keys.sqlite"})})
    hold(fake_engines)
    async with serving(fake_engines, config) as url, client(url, own) as stock:
        response_id = (await ask(stock, background=True)).id
        for key in (other, admin):
            async with client(url, key) as stranger:
                for call in (
                    stranger.responses.retrieve(response_id),
                    stranger.responses.delete(response_id),
                    stranger.responses.cancel(response_id),
                    stranger.responses.input_items.list(response_id),
                ):
                    with pytest.raises(openai.NotFoundError):
                        await call
                with pytest.raises(openai.BadRequestError):
                    await ask(stranger, previous_response_id=response_id)
        fake_engines.release()
        assert (await ended(stock, response_id)).status == "completed"
    (key_id,) = [key.id for key in keys.all() if key.name == "own"]
    used = keys.usage()[key_id]
    assert (used.requests, used.completion_tokens > 0) == (1, True)


async def test_a_response_in_the_background_outlives_its_client(fake_engines: FakeEngines, tmp_path: Path) -> None:
    hold(fake_engines)
    async with serving(fake_engines, keeping(tmp_path)) as url:
        async with client(url) as stock:
            queued = await ask(stock, background=True, metadata={"a": "b"})
            assert (queued.status, queued.background, queued.output) == ("queued", True, [])
        assert await eventually(lambda: fake_engines.running == len(MEMBERS))
        async with client(url) as stock:
            assert (await stock.responses.retrieve(queued.id)).status == "in_progress"
            with pytest.raises(openai.BadRequestError, match="in_progress"):
                await ask(stock, previous_response_id=queued.id)
            fake_engines.release()
            done = await ended(stock, queued.id)
            assert (done.status, done.output_text, done.created_at) == (
                "completed",
                "The final answer",
                queued.created_at,
            )
            assert (done.metadata, done.usage.input_tokens) == ({"a": "b"}, 10)
            assert (await ask(stock, previous_response_id=queued.id)).status == "completed"


async def test_a_response_in_the_background_holds_its_body_until_it_is_admitted(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    hold(fake_engines)
    config = keeping(tmp_path)
    one_at_a_time = {name: model.model_copy(update={"max_num_seqs": 1}) for name, model in config.models.items()}
    async with (
        serving(fake_engines, config.model_copy(update={"models": one_at_a_time})) as url,
        client(url) as stock,
    ):
        bodies = fake_engines.reloader.state.bodies
        await ask(stock, "x" * 5000, background=True)
        assert await eventually(lambda: fake_engines.running == len(MEMBERS) and bodies.held == 0)
        waiting = await ask(stock, "x" * 5000, background=True)
        assert 5000 < bodies.held < 10_000
        await stock.responses.cancel(waiting.id)
        assert bodies.held == 0


async def test_a_cancelled_response_frees_its_engines_and_stays_cancelled(
    fake_engines: FakeEngines, stock: AsyncOpenAI
) -> None:
    hold(fake_engines)
    queued = await ask(stock, background=True)
    assert await eventually(lambda: fake_engines.running == len(MEMBERS))
    assert (await stock.responses.cancel(queued.id)).status == "cancelled"
    assert await eventually(lambda: fake_engines.running == 0)
    assert (await stock.responses.cancel(queued.id)).status == "cancelled"
    assert (await stock.responses.retrieve(queued.id)).status == "cancelled"


async def test_responses_are_written_as_json_by_the_stores_thread_alone(
    stock: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers: list[str] = []

    def noted(value: Any) -> bytes:
        writers.append(threading.current_thread().name)
        return orjson.dumps(value)

    for module in (kept_responses, response_store):
        monkeypatch.setattr(module, "orjson", SimpleNamespace(loads=orjson.loads, dumps=noted))
    first = await ask(stock)
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    again = await ask(stock, [reference, {"role": "user", "content": "And?"}], background=True)
    assert (await ended(stock, again.id)).output_text == "The final answer"
    assert writers
    assert threading.current_thread().name not in writers


async def test_only_what_runs_in_the_background_is_cancelled_and_what_has_ended_stays(stock: AsyncOpenAI) -> None:
    done = await ask(stock, background=True)
    await ended(stock, done.id)
    assert (await stock.responses.cancel(done.id)).status == "completed"
    with pytest.raises(openai.BadRequestError, match="background"):
        await stock.responses.cancel((await ask(stock)).id)


async def test_a_deleted_response_ends_in_the_background(fake_engines: FakeEngines, stock: AsyncOpenAI) -> None:
    hold(fake_engines)
    queued = await ask(stock, background=True)
    assert await eventually(lambda: fake_engines.running == len(MEMBERS))
    await stock.responses.delete(queued.id)
    assert await eventually(lambda: fake_engines.running == 0)
    with pytest.raises(openai.NotFoundError):
        await stock.responses.retrieve(queued.id)


async def test_a_response_that_fails_in_the_background_says_why(fake_engines: FakeEngines, stock: AsyncOpenAI) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="break"))
    failed = await ended(stock, (await ask(stock, background=True)).id)
    assert (failed.status, failed.error.code) == ("failed", "insufficient_quorum")
    with pytest.raises(openai.BadRequestError, match="failed"):
        await ask(stock, previous_response_id=failed.id)


async def test_a_key_has_only_so_many_in_the_background(fake_engines: FakeEngines, tmp_path: Path) -> None:
    hold(fake_engines)
    async with kept(fake_engines, tmp_path, max_background=1) as stock:
        first = await ask(stock, background=True)
        with pytest.raises(openai.RateLimitError, match=r"server\.runs\.max_background") as raised:
            await ask(stock, background=True)
        assert raised.value.response.headers["retry-after"]
        await stock.responses.cancel(first.id)
        assert (await ask(stock, background=True)).status == "queued"


async def test_a_server_that_stops_leaves_nothing_in_progress(fake_engines: FakeEngines, tmp_path: Path) -> None:
    hold(fake_engines)
    async with kept(fake_engines, tmp_path) as stock:
        response_id = (await ask(stock, background=True)).id
    assert fake_engines.running == 0 or await eventually(lambda: fake_engines.running == 0)
    async with kept(fake_engines, tmp_path) as stock:
        failed = await stock.responses.retrieve(response_id)
    assert (failed.status, failed.error and failed.error.message) == (
        "failed",
        "The server was stopped before this response had ended.",
    )


async def test_what_a_killed_server_was_doing_has_failed(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with kept(fake_engines, tmp_path) as stock:
        response_id, other = (await ask(stock)).id, (await ask(stock)).id
    store = RunStore(tmp_path / "runs.sqlite", 1)
    query = "UPDATE responses SET status = 'in_progress' WHERE id = ?"
    await store.call(lambda db: db.execute(query, (response_id,)))
    store.close()
    async with kept(fake_engines, tmp_path) as stock:
        failed = await stock.responses.retrieve(response_id)
        assert (failed.status, failed.error and failed.error.code) == ("failed", "server_error")
        assert "restarted" in str(failed.error)
        assert (await stock.responses.retrieve(other)).status == "completed"


async def test_a_file_that_fails_costs_no_answer_but_nothing_runs_unseen(
    fake_engines: FakeEngines, stock: AsyncOpenAI, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "runs.sqlite", 1)
    await store.call(lambda db: db.execute("DROP TABLE responses"))
    store.close()
    reply = await ask(stock)
    assert reply.output_text == "The final answer"
    asked = len(fake_engines.servers["ann"].bodies)
    for call in (ask(stock, background=True), stock.responses.retrieve(reply.id), ask(stock, previous_response_id="x")):
        with pytest.raises(openai.InternalServerError) as raised:
            await call
        assert (raised.value.status_code, raised.value.code) == (503, "runs_unavailable")
    assert len(fake_engines.servers["ann"].bodies) == asked


async def test_a_response_whose_end_cannot_be_written_is_not_in_progress_for_ever(
    fake_engines: FakeEngines, stock: AsyncOpenAI, tmp_path: Path
) -> None:
    hold(fake_engines)
    response_id = (await ask(stock, background=True)).id
    assert await eventually(lambda: fake_engines.running == len(MEMBERS))
    refuse = "CREATE TRIGGER full BEFORE UPDATE ON responses BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    store = RunStore(tmp_path / "runs.sqlite", 1)
    await store.call(lambda db: db.execute(refuse))
    assert (await stock.responses.retrieve(response_id)).status == "in_progress"
    fake_engines.release()
    failed = await ended(stock, response_id)
    assert (failed.status, failed.error.message) == ("failed", "What became of this response could not be written.")
    await store.call(lambda db: db.execute("DROP TRIGGER full"))
    store.close()
    assert (await stock.responses.retrieve(response_id)).status == "failed"


async def test_a_response_has_the_id_of_its_run(stock: AsyncOpenAI, tmp_path: Path) -> None:
    reply = await ask(stock, background=True)
    run_id = (await ended(stock, reply.id)).to_dict()["fusion"]["run_id"]
    assert run_id.removeprefix("run-") == reply.id.removeprefix("resp_")
    store = RunStore(tmp_path / "runs.sqlite", 1)
    assert await store.find(run_id, Reader(True, None))
    store.close()


async def test_of_two_who_delete_at_once_one_is_told_that_there_is_none(stock: AsyncOpenAI) -> None:
    response_id = (await ask(stock)).id
    told = await asyncio.gather(*(stock.responses.delete(response_id) for _ in range(4)), return_exceptions=True)
    refused = [each for each in told if each is not None]
    assert [getattr(each, "status_code", None) for each in refused] == [404] * 3


async def test_a_response_in_the_background_has_the_right_status_at_each_stage(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    config = keeping(tmp_path)
    one_at_a_time = {name: model.model_copy(update={"max_num_seqs": 1}) for name, model in config.models.items()}
    config = config.model_copy(update={"models": one_at_a_time})
    hold(fake_engines)
    async with serving(fake_engines, config) as url, client(url) as stock:

        async def status(response_id: str) -> Any:
            return (await stock.responses.retrieve(response_id)).status

        first, second, third = [await ask(stock, background=True) for _ in range(3)]
        assert {each.status for each in (first, second, third)} == {"queued"}
        assert await eventually(lambda: fake_engines.running == len(MEMBERS))
        stages = [await status(each.id) for each in (first, second, third)]
        assert stages == ["in_progress", "queued", "queued"]
        assert (await stock.responses.cancel(third.id)).status == await status(third.id) == "cancelled"
        assert (await stock.responses.cancel(first.id)).status == "cancelled"
        assert await eventually(lambda: len(fake_engines.servers["ann"].bodies) == 2)
        assert await status(second.id) == "in_progress"
        fake_engines.release()
        assert (await ended(stock, second.id)).status == "completed"
        fake_engines.let("judge", judge_script(Script(("cut",), finish_reason="length")))
        cut = await ended(stock, (await ask(stock, background=True)).id)
        assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert [each.status for each in (await stock.responses.retrieve(cut.id),)] == ["incomplete"]
        for name in MEMBERS:
            fake_engines.let(name, Script(ending="break"))
        failed = await ended(stock, (await ask(stock, background=True)).id)
        assert (failed.status, failed.error.code, failed.completed_at) == ("failed", "insufficient_quorum", None)


async def test_a_stream_that_fails_is_kept_as_failed(
    fake_engines: FakeEngines, stock: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "EARLY_FAILURE_S", 0.0)
    for name in MEMBERS:
        fake_engines.let(name, Script(pause_s=0.05, ending="break"))
    events = [event async for event in await ask(stock, stream=True)]
    assert events[-1].type == "response.failed"
    again = await stock.responses.retrieve(events[-1].response.id)
    assert again.to_dict() == events[-1].response.to_dict()
