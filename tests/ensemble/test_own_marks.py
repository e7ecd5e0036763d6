"""Our own marks are cut from what models generate, in streams as in whole answers."""

import json
import re
from collections.abc import Callable
from itertools import pairwise

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.ensemble import own_marks, prompts
from cappella.ensemble.events import AnswerDelta, FinalDelta
from cappella.ensemble.own_marks import ChunkCutter, TextCutter
from cappella.types import Chunk, Prompt, ToolCall
from support.fake_engines import MEMBERS, FakeEngines, gateway_config, judge_script, last_message, serving
from support.scripted_engine import Json, Script

NONCE = "0a1b2c3d"
TOOL: Json = {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}
PIECES = st.sampled_from(
    [
        *(mark.format(label=label, nonce=NONCE) for mark in (prompts.OPEN_MARK, prompts.CLOSE_MARK) for label in "AC"),
        *("[answer A 0a1b2c3d]", "[end B 0a1b2c3d]", "[end A ", "[answer B 0a1b", "\n[", "\n", "[", "]", NONCE, "x"),
        *("[end A deadbeef]", "\n[end AA 0a1b2c3d]"),
    ]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def cut(*pieces: str) -> str:
    cutter = TextCutter(NONCE)
    return "".join([*map(cutter.add, pieces), cutter.end()])


def split(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[begin:end] for begin, end in pairwise(bounds)]


@given(TEXTS, st.lists(st.integers(0, 200), max_size=40))
def test_a_text_is_cut_alike_however_it_is_split(text: str, places: list[int]) -> None:
    assert cut(*split(text, places)) == cut(*text) == cut(text)


@given(st.text(alphabet="[]\n aendswr0bcA", max_size=40), st.lists(st.integers(0, 40), max_size=10))
def test_a_text_without_the_nonce_stays_as_it_is(text: str, places: list[int]) -> None:
    plain = text.replace("0", "1")
    assert cut(*split(plain, places)) == plain


def test_a_pattern_of_the_run_is_made_only_for_a_text_with_its_nonce() -> None:
    own_marks._patterns.cache_clear()
    assert cut("A list:\n", "- [ ] x [a", "nswer A deadbeef] y\n", "\n") == "A list:\n- [ ] x [answer A deadbeef] y\n\n"
    assert own_marks._patterns.cache_info().misses == 0
    assert cut("x [answer A ", f"{NONCE}] y") == "x  y"
    assert own_marks._patterns.cache_info().misses == 1


@given(TEXTS, st.lists(st.integers(0, 200), max_size=40))
def test_no_more_is_held_back_than_a_mark_is_long(text: str, places: list[int]) -> None:
    cutter, longest = TextCutter(NONCE), len(prompts.OPEN_MARK.format(label="A", nonce=NONCE))
    read = sent = ""
    for piece in split(text, places):
        read, sent = read + piece, sent + cutter.add(piece)
        assert len(cut(read)) - len(sent) < longest


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[answer A 0a1b2c3d]\nIt is 5.\n[end A 0a1b2c3d]", "It is 5."),
        ("[answer A 0a1b2c3d]\n5\n[end A 0a1b2c3d]\n\n[answer B 0a1b2c3d]\n6\n[end B 0a1b2c3d]", "5\n\n6"),
        ("It is 5.[end A 0a1b2c3d] [answer B 0a1b2c3d]No.", "It is 5. No."),
        ("cut off\n[end A 0a1", "cut off"),
        ("cut off [answer C 0a1b2c3d", "cut off "),
        ("[answer A 0a1b2c3d]", ""),
        ("a[end A ", "a[end A "),
        ("a\n[end A deadbeef]", "a\n[end A deadbeef]"),
        ("a[1]\n\n", "a[1]\n\n"),
    ],
)
def test_marks_go_and_all_else_stays(text: str, left: str) -> None:
    assert cut(text) == cut(*text) == left


def test_a_text_ends_where_another_kind_begins_and_the_calls_before_the_next_one() -> None:
    cutter = ChunkCutter(NONCE)
    chunks = [
        Chunk(reasoning="thought\n"),
        Chunk(content="I call ["),
        Chunk(tool_calls=[ToolCall(0, "id0", "get", "{}\n[end A")]),
        Chunk(tool_calls=[ToolCall(0, arguments=" 0a1b2c3d]\n")]),
        Chunk(tool_calls=[ToolCall(1, "id1", "put", "[")]),
        Chunk(finish_reason="tool_calls"),
    ]
    made = [cutter.cut(chunk) for chunk in chunks]
    assert [chunk.reasoning for chunk in made] == ["thought", "\n", "", "", "", ""]
    assert [chunk.content for chunk in made] == ["", "I call ", "[", "", "", ""]
    pieces = [(call.index, call.arguments) for chunk in made for call in chunk.tool_calls]
    assert pieces == [(0, "{}"), (0, ""), (0, "\n"), (1, ""), (1, "[")]


def test_log_probabilities_of_held_text_come_with_the_next_text() -> None:
    cutter = ChunkCutter(NONCE)
    tokens: list[Json] = [{"token": token} for token in ("a", "\n", "b", "\n")]
    made = [cutter.cut(Chunk(token["token"], logprobs=[token])) for token in tokens]
    made.append(cutter.cut(Chunk(finish_reason="stop")))
    assert [(chunk.content, len(chunk.logprobs)) for chunk in made] == [
        ("a", 1),
        ("", 0),
        ("\nb", 2),
        ("", 0),
        ("\n", 1),
    ]


def copies(*pieces: str, calls: tuple[tuple[str, str], ...] = ()) -> Callable[[Json], Script]:
    """A model that writes the nonce of the last fence in its prompt, if there is one, for NONCE; half of it for HALF."""

    def script(body: Json) -> Script:
        nonces = re.findall(r"\[end \w ([0-9a-f]{8})\]", last_message(body)) or ["none yet"]
        texts = [each.replace("NONCE", nonces[-1]).replace("HALF", nonces[-1][:4]) for each in pieces]
        return Script(tuple(texts), calls=tuple((name, text.replace("NONCE", nonces[-1])) for name, text in calls))

    return script


def final_text(fake_engines: FakeEngines) -> str:
    return "".join(event.chunk.content for event in fake_engines.events if isinstance(event, FinalDelta))


CALL = '{"name": "get"}'


@pytest.mark.parametrize(
    "pieces",
    [
        (f"{CALL}\n[end A NONCE]",),
        (CALL, "\n", "[end", " A ", "NONCE", "]"),
        ("[", "answer B NONCE", "]", "\n", CALL, "\n", "[end B NONCE]"),
        (CALL, "\n[end A HALF"),
    ],
)
async def test_a_judges_copies_of_marks_reach_no_answer(fake_engines: FakeEngines, pieces: tuple[str, ...]) -> None:
    fake_engines.let("judge", lambda body: judge_script(copies(*pieces)(body))(body))
    run = await fake_engines.run()
    assert (run.content, final_text(fake_engines), run.status) == (CALL, CALL, "ok")


async def test_a_judge_that_writes_only_marks_gave_no_answer(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", copies("\n[end A NONCE]"))
    run = await fake_engines.run(analysis="off")
    assert (run.content, run.status, run.failure_reason) == ("Hello there", "degraded", "empty_answer")


async def test_a_judges_tool_calls_have_no_marks(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", copies("\n[end A NONCE]", calls=(("get", '{"a": 1}\n[end A NONCE]'), ("get", "{}"))))
    prompt = Prompt([{"role": "user", "content": "Get."}], tools=[TOOL])
    run = await fake_engines.put(prompt, analysis="off")
    assert [call.arguments for call in run.answer.tool_calls] == ['{"a": 1}', "{}"]
    assert (run.answer.finish_reason, run.content) == ("stop", "")
    sent = [call for event in fake_engines.events if isinstance(event, FinalDelta) for call in event.chunk.tool_calls]
    assert "".join(call.arguments for call in sent if call.index == 0) == '{"a": 1}'


async def test_an_analysis_has_no_marks(fake_engines: FakeEngines) -> None:
    lists: Json = {"contradictions": [], "partial_coverage": [], "unique_insights": [], "blind_spots": []}
    analysis = json.dumps({"consensus": ["five [end A NONCE]"], **lists})
    fake_engines.let("judge", copies(analysis))
    run = await fake_engines.run()
    assert run.analysis
    assert run.analysis["consensus"] == ["five "]


@pytest.mark.parametrize("strategy", ["debate", "select"])
async def test_members_copies_of_the_marks_of_the_round_before_are_cut(
    fake_engines: FakeEngines, strategy: str
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, copies("[answer A NONCE]\n", f"I am {name}", "\n[end", " A NONCE]"))
    run = await fake_engines.run(strategy=strategy, layers=2, early_exit="off")
    assert [answer.content for answer in run.answers] == ["I am ann", "I am bob", "I am cat"]
    assert all(fake_engines.partial_answer(name).endswith(f"I am {name}") for name in MEMBERS)
    assert any(isinstance(event, AnswerDelta) for event in fake_engines.events)


async def test_what_only_looks_like_a_mark_is_returned(fake_engines: FakeEngines) -> None:
    quoted = "The log says:\n[end A deadbeef]"
    for name in MEMBERS:
        fake_engines.let(name, Script((quoted,)))
    run = await fake_engines.run(early_exit="equal")
    assert (run.content, final_text(fake_engines)) == (quoted, quoted)
    fake_engines.let("judge", judge_script(Script((quoted,))))
    assert (await fake_engines.run()).content == quoted


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
@pytest.mark.parametrize("stream", [False, True])
async def test_clients_of_each_format_see_no_mark(fake_engines: FakeEngines, path: str, stream: bool) -> None:
    fake_engines.let("judge", lambda body: judge_script(copies("Paris.", "\n[end", " A NONCE]")(body))(body))
    messages: Json = {"messages": [{"role": "user", "content": "Where?"}], "max_tokens": 50}
    asked: Json = {"input": "Where?"} if path == "responses" else messages
    body = {"model": "cappella/default", "stream": stream, **asked}
    async with (
        serving(fake_engines, gateway_config()) as url,
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/{path}", json=body) as reply,
    ):
        text = await reply.text()
    assert reply.status == 200, text
    assert "Paris." in text
    assert "[end" not in text
