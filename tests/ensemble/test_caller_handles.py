"""Handles that the conversation brings along: no source of the run has them, and the caller's own stay in the answer."""

from typing import Any

import pytest

from cappella.config.options import GivenAnswer, Seat
from cappella.config.seat_tools import SeatTools
from cappella.ensemble.events import CitationsRemoved
from cappella.ensemble.run import Run
from cappella.types import Json, Message, Prompt, Sampling
from support.fake_engines import FakeEngines, judge_script
from support.scripted_engine import Script
from support.small_tools import LEAVE, NOTICE, searching

SEARCH = Script((), calls=(("search", '{"q": "leave"}'),), finish_reason="tool_calls")
ANN = Seat("ann", "ann", Sampling(temperature=0.7), tools=SeatTools(("handbook",)))
BOB = Seat("bob", "bob", Sampling(temperature=0.7))


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


async def answered(fake_engines: FakeEngines, final: str, *messages: Message, **changes: Any) -> Run:
    """Ann finds two passages; the judge writes this."""
    fake_engines.tool_servers["handbook"] = searching(LEAVE, NOTICE)

    def ann(body: Json) -> Script:
        return Script(("Thirty.",)) if any(each["role"] == "tool" for each in body["messages"]) else SEARCH

    fake_engines.let("ann", ann)
    fake_engines.let("judge", judge_script(Script((final[:5], final[5:]))))
    return await fake_engines.put(Prompt(list(messages)), **{"panel": (ANN, BOB), "analysis": "off", **changes})


def handles(run: Run) -> list[str]:
    assert run.sources
    return [source.handle for source in run.sources.found]


EARLIER = [user("How much?"), assistant("28 [S1], not 24 [S3; S4].")]


async def test_sources_have_no_handle_that_an_earlier_answer_cites(fake_engines: FakeEngines) -> None:
    run = await answered(fake_engines, "So 30 [S2], 28 [S3].", *EARLIER, user("And leave?"))
    assert handles(run) == ["S2", "S5"]
    results = [each["content"] for each in fake_engines.servers["ann"].bodies[-1]["messages"] if each["role"] == "tool"]
    assert "[S2] handbook/leave.md" in results[0]
    assert "[S5] handbook/notice.md" in results[0]
    # What it repeats of the earlier answer would lead nowhere.
    assert run.content == "So 30 [S2], 28."
    assert run.sources
    assert (run.sources.cited, run.sources.removed) == (["S2"], ["S3"])


@pytest.mark.parametrize(
    "messages",
    [
        [user("What is in the bucket [S1]?")],
        [user([{"type": "text", "text": "What is in the bucket [S1]?"}])],
        [{"role": "system", "content": "Call the bucket [S1]."}, user("What is in it?")],
        [*EARLIER, user("What does [S1] say?")],
    ],
    ids=["question", "parts", "system", "quoted"],
)
async def test_what_looks_like_a_citation_in_the_callers_own_words_stays_and_cites_nothing(
    fake_engines: FakeEngines, messages: list[Message]
) -> None:
    run = await answered(fake_engines, "The bucket [S1] has 30 [S2], 9 [S9][S1].", *messages)
    assert run.content == "The bucket [S1] has 30 [S2], 9 [S1]."
    assert run.sources
    assert (run.sources.cited, run.sources.removed) == (["S2"], ["S9"])
    removed = [event.handles for event in fake_engines.events if isinstance(event, CitationsRemoved)]
    assert removed == [["S9"]]


async def test_handles_in_given_answers_are_no_sources_of_the_run(fake_engines: FakeEngines) -> None:
    given = (GivenAnswer("theirs", "It is 28 [S1]."),)
    run = await answered(fake_engines, "It is 28 [S1], 30 [S2].", user("How much?"), answers=given)
    assert handles(run) == ["S2", "S3"]
    assert run.content == "It is 28 [S1], 30 [S2]."
    assert run.sources
    assert run.sources.cited == ["S2"]
    assert all("theirs" not in cited_by for cited_by in run.sources.cited_by.values())


async def test_without_handles_in_the_conversation_they_begin_with_the_first(fake_engines: FakeEngines) -> None:
    run = await answered(fake_engines, "It is 30 [S1].", user("How much, for S1 and arr[0]?"))
    assert handles(run) == ["S1", "S2"]
