"""The final answer cites only sources that the run found, in streams as in whole answers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.config.options import Gate
from cappella.ensemble import context, prompts
from cappella.ensemble.citation_text import MAX_CHARS, CitationText, citations_in
from cappella.ensemble.citations import Citations, cited_in
from cappella.ensemble.events import CitationsRemoved, FinalDelta
from cappella.ensemble.sources import Sources
from cappella.tools.base import Passage
from cappella.types import Chunk, Json, OutputFormat, Prompt, ToolCall
from support.fake_engines import MEMBERS, FakeEngines, judge_script, last_message
from support.found_passages import FAQ, RATES, find
from support.scripted_engine import Script

KNOWN = {"S1", "S2", "S3"}
CITED = ["[S1]", "[S9]", "[S1, S9]", "[S2;S3]", "[", "]", "S1", "S9", "(", ")", ", ", "[S12345]", "[S1,", "[x](y)"]
AROUND = [
    " ",
    "  ",
    "\n",
    "\t",
    "`",
    "``",
    "```",
    "~~~",
    "- ",
    "> ",
    "1. ",
    "py",
    "word",
    "\\",
    "*",
    "**",
    "_",
    "$",
    "<code>",
    "</code>",
    "    ",
    ":",
    "http",
]
PIECES = st.sampled_from([*CITED, *AROUND])
TEXTS = st.lists(PIECES, max_size=16).map("".join)


def cut(*pieces: str) -> str:
    text = CitationText(KNOWN.__contains__)
    return "".join([*map(text.add, pieces), text.end()])


def split(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[begin:end] for begin, end in pairwise(bounds)]


@given(TEXTS, st.lists(st.integers(0, 200), max_size=40))
def test_a_text_is_checked_alike_however_it_is_split(text: str, places: list[int]) -> None:
    assert cut(*split(text, places)) == cut(*text) == cut(text)


def test_blanks_before_a_citation_may_come_in_several_pieces() -> None:
    assert cut("28   ", " [S9].") == cut("28    [S9].") == "28   ."


@given(TEXTS)
def test_a_checked_text_stays_as_it_is(text: str) -> None:
    assert cut(cut(text)).count("S9") <= cut(text).count("S9")
    assert CitationText(lambda handle: True).add(text + "\n") == text + "\n"


@given(TEXTS, st.lists(st.integers(0, 200), max_size=40))
def test_no_more_is_held_back_than_a_citation_is_long(text: str, places: list[int]) -> None:
    reader = CitationText(KNOWN.__contains__)
    read = sent = ""
    for piece in split(text, places):
        read, sent = read + piece, sent + reader.add(piece)
        assert len(cut(read)) - len(sent) <= MAX_CHARS


@given(TEXTS, st.lists(st.integers(0, 200), max_size=40))
def test_places_of_citations_are_those_in_the_text_that_is_sent(text: str, places: list[int]) -> None:
    reader, sent, found = CitationText(KNOWN.__contains__), "", list[tuple[str, int]]()
    for piece in [*split(text, places), None]:
        new = reader.end() if piece is None else reader.add(piece)
        found += [(each.handle, len(sent) + each.at) for each in reader.found]
        sent += new
    assert all(sent[at] == "[" and handle in sent[at:].partition("]")[0] for handle, at in found)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("It is 28 [S1].", "It is 28 [S1]."),
        ("It is 28 [S9].", "It is 28."),
        ("It is 28 [S1, S9], not 24 [S9;S2].", "It is 28 [S1], not 24 [S2]."),
        ("a[S3][S9][S1] b", "a[S3][S1] b"),
        ("see [S9](http://x) and [S3](y)", "see [S9](http://x) and [S3](y)"),
        ("Amazon's storage (S9)", "Amazon's storage (S9)"),
        ("`arr[S9]` and [S9]", "`arr[S9]` and"),
        ("``a`[S9]`` [S9]", "``a`[S9]``"),
        ("```py\narr[S9]\n```\nx [S9]", "```py\narr[S9]\n```\nx"),
        ("~~~\n[S9]\n```\n[S9]\n~~~\nx [S9]", "~~~\n[S9]\n```\n[S9]\n~~~\nx"),
        ("1. ```\n   a[S9]\n   ```\n   x [S9]", "1. ```\n   a[S9]\n   ```\n   x"),
        ("```\n[S9]\n```python\n[S9]", "```\n[S9]\n```python\n[S9]"),
        ("```a``` x [S9]", "```a``` x"),
        ("one ` alone [S9]\nx [S9]\n\ny [S9]", "one ` alone [S9]\nx [S9]\n\ny"),
        ("[s9] [S] [S1234567] [Section] [1]", "[s9] [S] [S1234567] [Section] [1]"),
        ("cut off [S9", "cut off [S9"),
        ("[S9]", "[S9]"),
        (" [S9][S8]\n", "\n [S9][S8]"),
        ("2428[S1].", "2428[S1]."),
        ("2428[S1, S9].", "2428[S1]."),
        ("arr[S9] = 1", "arr[S9] = 1"),
        ("f(x)[S9] and m[0][S9] and f([S9])", "f(x)[S9] and m[0][S9] and f([S9])"),
        ("escaped \\[S9]", "escaped \\[S9]"),
        ("so:\n\n    x = a [S5]\n\nx [S5]", "so:\n\n    x = a [S5]\n\nx"),
        ("- one [S9]\n    - two [S9]", "- one\n    - two"),
        ("$a [S4]$ is it [S4].", "$a [S4]$ is it."),
        ("$$\na [S4]\n$$\nb [S4]", "$$\na [S4]\n$$\nb"),
        ("It costs $5 [S9] or $6 [S9].", "It costs $5 or $6."),
        ("<code>x [S8]</code> b [S8]", "<code>x [S8]</code> b"),
        ("`a\n [S9]` b [S9]", "`a\n [S9]` b"),
        ("see [S9][ref] and [S9]: http://x", "see [S9][ref] and [S9]: http://x"),
        ("28 **[S9]**, 24 ([S9]) or [[S9]].", "28, 24 or."),
        ("28 **[S1]** ([S9], [S1]; [S8])", "28 **[S1]** ([S1])"),
        ("28 [S9], [S8].", "28."),
        ("28    [S9].", "28   ."),
    ],
)
def test_citations_of_nothing_go_and_all_else_stays(text: str, left: str) -> None:
    assert cut(text) == cut(*text) == left


def test_citations_are_found_outside_of_code_only() -> None:
    text = "a [S1] `[S2]` b [S3, S1]"
    assert [(each.handle, each.at) for each in citations_in(text, KNOWN.__contains__)] == [
        ("S1", 2),
        ("S3", 16),
        ("S1", 16),
    ]


def citations_of(*passages: Passage) -> tuple[Citations, list[str]]:
    sources, removed = Sources(), list[str]()
    sources.add(passages, "ann")
    return Citations(sources, removed.extend), removed


def test_without_sources_nothing_is_checked() -> None:
    citations, _ = citations_of()
    assert citations.of_call(None) is None


def test_log_probabilities_of_held_text_come_with_the_next_text() -> None:
    citations, removed = citations_of(RATES)
    call = citations.of_call(None)
    assert call
    tokens: list[Json] = [{"token": token} for token in ("a", " [", "S9", "]", ".", " [S1]")]
    made = [call.cut(Chunk(token["token"], logprobs=[token])) for token in tokens]
    made.append(call.cut(Chunk(finish_reason="stop")))
    assert [(chunk.content, len(chunk.logprobs)) for chunk in made] == [
        ("a", 1),
        ("", 0),
        ("", 0),
        ("", 0),
        (".", 4),
        ("", 0),
        (" [S1]", 1),
    ]
    assert removed == ["S9"]


def test_a_text_ends_where_a_tool_call_begins() -> None:
    citations, _ = citations_of(RATES)
    call = citations.of_call(None)
    assert call
    made = [call.cut(Chunk("I call [S1]")), call.cut(Chunk(tool_calls=[ToolCall(0, "id", "get", "[S9]")]))]
    assert [chunk.content for chunk in made] == ["I call", " [S1]"]
    assert made[1].tool_calls[0].arguments == "[S9]"


def final_text(fake_engines: FakeEngines) -> str:
    return "".join(event.chunk.content for event in fake_engines.events if isinstance(event, FinalDelta))


def told_places(fake_engines: FakeEngines) -> list[tuple[str, int]]:
    sent, places = 0, list[tuple[str, int]]()
    for event in fake_engines.events:
        if isinstance(event, FinalDelta):
            places += [(each.source.handle, sent + each.at) for each in event.citations]
            sent += len(event.chunk.content)
    return places


WRITTEN = ("28 EUR ", "[S", "1, S9", "], not", " 24 [S7", "].")


async def test_a_judge_cites_what_was_found(fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    find(monkeypatch, RATES, FAQ)
    fake_engines.let("ann", Script(("24 EUR [S2], or 28 [S1]",)))
    fake_engines.let("judge", judge_script(Script(WRITTEN)))
    run = await fake_engines.run()
    assert run.content == final_text(fake_engines) == "28 EUR [S1], not 24."
    assert run.sources
    assert ([each.handle for each in run.sources.found], run.sources.cited) == (["S1", "S2"], ["S1"])
    assert run.sources.cited_by == {"S1": ["ann"], "S2": ["ann"]}
    assert run.sources.removed == ["S9", "S7"]
    removed = [event.handles for event in fake_engines.events if isinstance(event, CitationsRemoved)]
    assert removed == [["S9"], ["S7"]]
    found = [(each.source.handle, each.at) for each in cited_in(run.content, run.sources)]
    assert told_places(fake_engines) == found == [("S1", 7)]


async def test_a_run_without_sources_stays_as_it_is(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(WRITTEN)))
    run = await fake_engines.run()
    assert run.content == final_text(fake_engines) == "".join(WRITTEN)
    assert run.sources is None
    assert told_places(fake_engines) == []


@pytest.mark.parametrize("strategy", ["select", "vote"])
async def test_a_members_answer_that_is_returned_is_checked(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    find(monkeypatch, RATES)
    for name in MEMBERS:
        fake_engines.let(name, Script(("28 EUR [S1] ", "[S9]", ".")))
    run = await fake_engines.run(strategy=strategy, early_exit="equal")
    assert run.content == final_text(fake_engines) == "28 EUR [S1]."
    assert run.answers[0].content == "28 EUR [S1] [S9]."
    assert run.sources
    assert (run.sources.cited, run.sources.removed) == (["S1"], ["S9"])
    assert told_places(fake_engines) == [("S1", 7)]


async def test_a_fallback_after_part_of_an_answer_is_checked_from_its_beginning(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(monkeypatch, RATES)
    for name in MEMBERS:
        fake_engines.let(name, Script(("28 [S1][S9]",)))
    fake_engines.let("judge", judge_script(Script(("```\n", "x [S9]", "y"), ending="break")))
    run = await fake_engines.run()
    assert (run.status, run.content) == ("degraded", "28 [S1]")
    assert final_text(fake_engines) == "```\nx [S9]y\n\n28 [S1]"
    assert told_places(fake_engines) == [("S1", len("```\nx [S9]y\n\n28 "))]


async def test_an_answer_in_a_requested_format_keeps_its_text_and_tells_what_is_unknown(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(monkeypatch, RATES)
    content = '{"sum": "28 [S1]", "note": "[S9]"}'
    fake_engines.let("judge", judge_script(Script((content,))))
    form = OutputFormat("response_format", {"type": "json_object"})
    run = await fake_engines.put(Prompt([{"role": "user", "content": "How much?"}], output_format=form))
    assert run.content == final_text(fake_engines) == content
    assert run.sources
    assert (run.sources.cited, run.sources.unknown, run.sources.removed) == (["S1"], ["S9"], [])


async def test_only_with_sources_is_the_judge_told_to_cite(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def judge(body: Json) -> Script:
        read.append(last_message(body))
        return judge_script(Script(("28",)))(body)

    fake_engines.let("judge", judge)
    await fake_engines.run()
    assert not any(prompts.CITE in text or prompts.CITED_SIDES in text for text in read)
    read.clear()
    find(monkeypatch, RATES, FAQ)
    await fake_engines.run()
    assert [sum(note in text for text in read) for note in (prompts.CITE, prompts.CITED_SIDES)] == [1, 1]


async def test_the_answer_of_a_model_that_answers_alone_is_checked(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources()
    sources.add([RATES], "cat")
    monkeypatch.setattr(context, "Sources", lambda taken: sources)
    fake_engines.let("cat", Script(("28 [S1]", " [S9]", ".")))
    run = await fake_engines.run(gate=Gate(mode="rules", model="cat", max_words=9))
    assert (run.status, run.content, final_text(fake_engines)) == ("bypassed", "28 [S1].", "28 [S1].")
    assert run.sources
    assert (run.sources.cited, run.sources.removed) == (["S1"], ["S9"])
    assert told_places(fake_engines) == [("S1", 3)]
