"""A judge's copy of our introduction is cut from its answer, in streams as in whole answers."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.ensemble.events import FinalDelta
from cappella.ensemble.own_introduction import IntroductionCutter
from cappella.ensemble.prompts import ANSWER_FROM_RESULTS, INTRODUCTION, RESULTS_INTRODUCTION
from support.fake_engines import FakeEngines, judge_script, last_message
from support.scripted_engine import Json, Script

NONCE = "0a1b2c3d"
OURS = INTRODUCTION.format(nonce=NONCE)
OTHERS = INTRODUCTION.format(nonce="deadbeef")


def cut(text: str, places: list[int]) -> str:
    cutter = IntroductionCutter(NONCE)
    bounds = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return "".join([*(cutter.add(text[begin:end]) for begin, end in pairwise(bounds)), cutter.end()])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{OURS}\n\nIt is Paris.", "It is Paris."),
        (f"\n {OURS} It is Paris.", "It is Paris."),
        (OURS, ""),
        (f"{RESULTS_INTRODUCTION.format(nonce=NONCE)}\n\nIt is Paris.", "It is Paris."),
        (f"{ANSWER_FROM_RESULTS.format(nonce=NONCE)} It is Paris.", "It is Paris."),
        (f"{OURS}\n\n{OURS}", OURS),
        (f"{OTHERS}\n\nIt is Paris.", f"{OTHERS}\n\nIt is Paris."),
        (f"So: {OURS}", f"So: {OURS}"),
        ("The request above is odd.", "The request above is odd."),
        ("The", "The"),
        ("  \n", "  \n"),
        ("", ""),
    ],
)
@given(places=st.lists(st.integers(0, 260), max_size=12))
def test_an_introduction_with_the_runs_own_nonce_is_cut_however_it_is_split(
    text: str, left: str, places: list[int]
) -> None:
    assert cut(text, places) == left


def copying(*rest: str) -> Callable[[Json], Script]:
    """A judge that begins with all that it read before the answers."""

    def script(body: Json) -> Script:
        if "Now write" not in last_message(body):
            return judge_script()(body)
        introduction = last_message(body).split("\n\n[answer A")[0].rpartition("\n\n")[2]
        words = introduction.split(" ")
        return Script((words[0], *(f" {word}" for word in words[1:]), *rest))

    return script


async def test_a_judges_copy_of_the_introduction_reaches_no_answer(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", copying("\n\n", "It is", " Paris."))
    run = await fake_engines.run()
    assert (run.status, run.content) == ("ok", "It is Paris.")
    streamed = "".join(event.chunk.content for event in fake_engines.events if isinstance(event, FinalDelta))
    assert streamed == "It is Paris."


async def test_a_judge_that_writes_only_the_introduction_gave_no_answer(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", copying())
    run = await fake_engines.run()
    assert run.status == "degraded"
    assert "put to several assistants" not in run.content
