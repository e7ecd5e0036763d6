"""Passages of different documents that say the same with another value: a model reads that they differ."""

import pytest

from cappella.config.options import Seat
from cappella.config.seat_tools import SeatTools
from cappella.ensemble.disagreement import MAX_FOUND, disagreements, lines
from cappella.ensemble.sources import Source
from cappella.tools.base import Passage, Relation, ToolResult
from cappella.types import Sampling
from support.fake_engines import FakeEngines
from support.scripted_engine import Script
from support.small_tools import SmallTools, searching

OWN = "The office of Falk Kolstad is E108."
NOTICE = "The office of Falk Kolstad is F128."
FILE = Passage("archive", "staff/7.md", "line 3", f"A first line.\n\n{OWN} It is warm.")
OTHER = Passage("archive", "notices/2.md", "line 1", f"To all departments. {NOTICE}")
CALL = Script((), calls=(("search", '{"q": "office"}'),), finish_reason="tool_calls")


def of(*texts: str, path: str = "{}.md") -> list[Source]:
    return [
        Source(f"S{number}", Passage("archive", path.format(number), "", text))
        for number, text in enumerate(texts, start=1)
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (OWN, NOTICE),
        ("The limit for cleaning the slipway is 3 days.", "The limit for cleaning the slipway is 11 days."),
        ("The limit for cleaning the slipway is 3 days.", "The limit for cleaning the slipway is 2 weeks."),
        ("The supervisor of Falk Kolstad is Nora Brandvik.", "The supervisor of Falk Kolstad is Bruno Marwick."),
        ("Contract K-7 with Quarry Bros ends on 2030-01-02.", "Contract K-7 with Quarry Bros ends on 2031-01-02."),
        ("Die Frist für den Antrag beträgt 30 Tage.", "Die Frist für den Antrag beträgt 14 Tage."),
    ],
)
def test_another_value_in_the_same_sentence_of_another_document_is_a_disagreement(one: str, other: str) -> None:
    (found,) = disagreements(of(f"Before. {one} Behind.", f"Other words.\n{other}"))
    assert (found.one.handle, found.said, found.other.handle, found.otherwise) == ("S1", one, "S2", other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (OWN, OWN),
        # Of other things.
        ("The office of Falk Kolstad is E108.", "The office of Falk Marwick is F128."),
        ("The captain of the Red Lantern is Falk.", "The captain of the North Wind is Falk."),
        ("The home pier of the Red Lantern is pier 3.", "The home pier of the North Wind is pier 3."),
        ("The value of contract K-7 is 800 crowns.", "The value of contract K-8 is 900 crowns."),
        # Too little says what it is about.
        ("The price is 30 crowns.", "The price is 40 crowns."),
        ("Nothing here.", ""),
        # No value.
        ("The office of Falk Kolstad is warm.", "The office of Falk Kolstad is cold."),
    ],
)
def test_other_things_and_other_words_are_none(one: str, other: str) -> None:
    assert not disagreements(of(one, other))


def test_one_document_does_not_disagree_with_itself_and_earlier_sources_only_with_new_ones() -> None:
    assert not disagreements(of(OWN, NOTICE, path="same.md"))
    one, other = of(OWN, NOTICE)
    assert not disagreements([], [one, other])
    assert len(disagreements([other], [one])) == 1


def test_few_are_told_and_they_take_a_part_of_the_room() -> None:
    found = disagreements(of(*(f"The office of Falk Kolstad is E{number}." for number in range(100, 110))))
    assert len(found) == MAX_FOUND
    assert [len(lines(found, room)) for room in (0, 500, 100_000)] == [0, 1, MAX_FOUND]


def test_the_words_of_a_passage_are_no_handle_in_the_line_either() -> None:
    (line,) = lines(
        disagreements(of("The office of [S9] Falk Kolstad is E1.", "The office of [S9] Falk Kolstad is E2.")), 9999
    )
    assert "[S9]" not in line
    assert "[S1] and [S2] differ" in line


def seat(name: str, *tools: str) -> Seat:
    return Seat(name, name, Sampling(), tools=SeatTools(tools))


def looks_up(fake_engines: FakeEngines, name: str) -> None:
    fake_engines.let(name, lambda body: Script(("E108.",)) if body["messages"][-1]["role"] == "tool" else CALL)


async def test_a_member_that_finds_both_reads_that_they_differ(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["archive"] = searching(FILE, OTHER, name="archive")
    looks_up(fake_engines, "ann")
    await fake_engines.run(panel=(seat("ann", "archive"), seat("bob")))
    text = fake_engines.servers["ann"].bodies[-1]["messages"][-1]["content"]
    inside, outside = text.split("\n[end A ")
    assert f"[S1] and [S2] differ: \u201c{OWN}\u201d in [S1], \u201c{NOTICE}\u201d in [S2]" in inside
    assert "[S1] and [S2] differ. If" in outside
    assert "E108" not in outside


async def test_the_judge_reads_that_what_two_members_found_differs(fake_engines: FakeEngines) -> None:
    for name, passage in (("ann", FILE), ("bob", OTHER)):
        fake_engines.tool_servers[f"of_{name}"] = searching(passage, name=f"of_{name}")
        looks_up(fake_engines, name)
    await fake_engines.run(panel=(seat("ann", "of_ann"), seat("bob", "of_bob")))
    text = fake_engines.judge_prompt()
    assert text.index("differ: \u201c") < text.index("[end S ") < text.index("differ. If")
    assert "differ" not in fake_engines.servers["ann"].bodies[-1]["messages"][-1]["content"]


async def test_a_related_passage_says_what_it_shares_with_which(fake_engines: FakeEngines) -> None:
    page = Passage("archive", "x.md", "line 1", "Falk Kolstad sails.")
    result = ToolResult(passages=[FILE, page], relations=[Relation(1, 0, "Falk Kolstad")])
    fake_engines.tool_servers["archive"] = SmallTools("archive", {"search": lambda _: result})
    looks_up(fake_engines, "ann")
    await fake_engines.run(panel=(seat("ann", "archive"), seat("bob")))
    text = fake_engines.servers["ann"].bodies[-1]["messages"][-1]["content"]
    assert "[S2] archive/x.md, line 1, has Falk Kolstad, as S1 does: Falk Kolstad sails." in text
