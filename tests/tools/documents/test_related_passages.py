"""Passages that a search adds because they name what its best hits name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cappella.config import Documents
from cappella.tools.base import Relation
from cappella.tools.documents.index import Index
from cappella.tools.documents.related import MAX_SHARED, Related, names_in, related
from cappella.tools.documents.scan import Scanner
from cappella.tools.documents.server import open_documents
from support.fake_engines import eventually

QUESTION = "What is the phone extension of the captain of the Amber Gull?"
SHIP = "The Amber Gull is a tug of 90 tonnes. Her captain is Nora Brandvik."
PERSON = "Nora Brandvik works at pier 4. The phone extension of Nora Brandvik is 2432."
OTHERS = {f"{name}.txt": f"{name} works at pier 5. The phone extension of {name} is 2999." for name in ("Ann", "Bob")}


@contextmanager
def indexed(folder: Path, files: dict[str, str]) -> Iterator[Index]:
    for name, text in files.items():
        path = folder / "papers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    Scanner(folder / "papers", folder / "index", ("en",)).scan()
    index = Index(folder / "index", ("en",), is_reader=True)
    try:
        yield index
    finally:
        index.close()


def found(
    index: Index, question: str = QUESTION, hits: Sequence[str] = ("ship.txt",), most: int = 2
) -> list[tuple[str, int, str]]:
    given = [index.passages_of(path)[0] for path in hits]
    return [(each.passage.path, each.to, each.by) for each in related(index, ("en",), question, given, most)]


def test_the_page_of_what_a_hit_names_is_found_and_its_name_is_told(tmp_path: Path) -> None:
    minutes = "Present were Nora Brandvik and others."
    with indexed(tmp_path, {"ship.txt": SHIP, "a.txt": minutes, "nora.txt": PERSON, **OTHERS}) as index:
        assert found(index) == [("nora.txt", 0, "Nora Brandvik"), ("a.txt", 0, "Nora Brandvik")]
        assert found(index, most=1) == [("nora.txt", 0, "Nora Brandvik")]
        assert found(index, most=0) == []


def test_pages_of_the_hits_own_kind_do_not_stand_before_the_page_that_answers(tmp_path: Path) -> None:
    contract = "Contract {} with Quarry Bros was signed by {}."
    question = "In which department is the person who signed contract K-703?"
    contracts = {
        f"{number}.txt": contract.format(number, who)
        for number, who in (("K-703", "Nora Brandvik"), ("K-704", "Ann Ash"), ("K-705", "Bob Beech"))
    }
    staff = {"nora.txt": "Nora Brandvik is clerk in the department Dredging.", **OTHERS}
    with indexed(tmp_path, {**contracts, **staff}) as index:
        assert found(index, question, ["K-703.txt"], most=1) == [("nora.txt", 0, "Nora Brandvik")]


def test_an_identifier_leads_to_where_else_it_stands(tmp_path: Path) -> None:
    files = {"pump.txt": "The pump in hall 3 has the serial number QX-7781.", "bill.txt": "For qx-7781 we paid 300."}
    with indexed(tmp_path, {**files, **OTHERS}) as index:
        assert found(index, "What did the pump in hall 3 cost?", ["pump.txt"]) == [("bill.txt", 0, "QX-7781")]


def test_what_the_question_names_and_what_many_pages_name_leads_nowhere(tmp_path: Path) -> None:
    many = {f"{number}.txt": f"Nora Brandvik was at meeting {number}." for number in range(MAX_SHARED)}
    with indexed(tmp_path, {"ship.txt": SHIP, **many}) as index:
        assert found(index) == []
    with indexed(tmp_path / "other", {"ship.txt": SHIP, "gull.txt": "Amber Gull, seen from afar."}) as index:
        assert found(index) == []


def test_neither_a_hit_nor_another_part_of_its_file_is_related_to_it(tmp_path: Path) -> None:
    long = SHIP + "\n\n" + "\n\n".join(f"{'water ' * 200}{number}" for number in range(3)) + "\n\nNora Brandvik sails."
    with indexed(tmp_path, {"ship.txt": long, "nora.txt": PERSON}) as index:
        assert found(index) == [("nora.txt", 0, "Nora Brandvik")]
        assert "nora.txt" not in [path for path, *_ in found(index, hits=["ship.txt", "nora.txt"])]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("The captain of it is Nora Brandvik.", ["nora brandvik"]),
        ("Yesterday Nora Brandvik left.", ["yesterday nora brandvik", "nora brandvik"]),
        ("Visitors wait. In winter, Ice closes it.", ["ice"]),
        ("See K-722 and 2026/118, not 1992 or 30.", ["k 722", "2026 118"]),
        ("Written by Ann, Bob and O'Neill.", ["ann", "bob", "o neill"]),
        ("THE WHOLE LINE STANDS LARGE HERE.", []),
        ("", []),
    ],
)
def test_names_are_runs_of_capitalised_words_and_identifiers(text: str, names: list[str]) -> None:
    stop = {"the", "in", "of", "this", "is", "and"}
    assert [" ".join(words) for words in names_in(text, stop)] == names


async def test_a_search_gives_related_passages_after_its_own_as_the_config_says(tmp_path: Path) -> None:
    with indexed(tmp_path, {"ship.txt": SHIP, "nora.txt": PERSON, **OTHERS}):
        pass
    for most in (0, 2):
        documents = Documents(folder=tmp_path / "papers", index=tmp_path / "index", related=most)
        server = open_documents("papers", documents)
        await server.start()
        try:
            assert await eventually(lambda server=server: server.problem is None)  # type: ignore[misc]
            result = await server.call("search", {"query": "Who is the captain of the Amber Gull?", "limit": 1})
        finally:
            await server.stop()
        paths = ["ship.txt", "nora.txt"] if most else ["ship.txt"]
        assert [each.path for each in result.passages] == paths
        assert list(result.relations) == ([Relation(1, 0, "Nora Brandvik")] if most else [])


def test_related_passages_are_in_order_of_their_worth(tmp_path: Path) -> None:
    files = {"ship.txt": "The Amber Gull belongs to Nora Brandvik and to Ann Ash.", "nora.txt": PERSON}
    both = "Nora Brandvik and Ann Ash own a ship."
    with indexed(tmp_path, {**files, "both.txt": both, "ann.txt": "Ann Ash has no phone."}) as index:
        given = index.passages(index.by_words("Who owns the Amber Gull?", 1))
        first = related(index, ("en",), "Who owns the Amber Gull?", given, 3)
        assert isinstance(first[0], Related)
        assert first[0].passage.path == "both.txt"
        assert {each.passage.path for each in first} == {"both.txt", "nora.txt", "ann.txt"}
