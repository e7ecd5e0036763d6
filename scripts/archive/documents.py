"""The archive as files: 200 documents in four formats, each with some text around its facts."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from random import Random

from docx import Document

from archive.world import Archive, Contract, Notice, Person, Procedure, Ship

FILLER = (
    "The harbour office keeps this page; a printed copy is not the current one.",
    "Whoever finds a mistake here tells the registry, which corrects it at the end of the week.",
    "The harbour was founded as a fishing pier and grew by three basins.",
    "In winter the inner basin may be closed by ice, and traffic moves to the outer one.",
    "Visitors are met at the gate, and walk on the marked paths only.",
    "The registry answers letters within the month in which they come.",
)


def write_documents(archive: Archive, folder: Path) -> int:
    """Write all of them; returns how many."""
    rng = Random(len(archive.people))
    documents = list(_documents(archive))
    for number, (name, title, facts) in enumerate(documents):
        text = [facts[0], *rng.sample(FILLER, 3), *facts[1:], *rng.sample(FILLER, 2)]
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[number % len(_WRITERS)](path, title, text)
    return len(documents)


def _documents(archive: Archive) -> Iterator[tuple[str, str, list[str]]]:
    """Path without its ending, title, and the sentences that matter."""
    for person in archive.people:
        yield f"staff/{person.number}", f"Staff file {person.number}: {person.name}", _of_person(person)
    for number, ship in enumerate(archive.ships):
        yield f"ships/{number + 1:02}", f"Ship register: {ship.name}", _of_ship(ship)
    for contract in archive.contracts:
        yield f"contracts/{contract.number}", f"Contract {contract.number}", _of_contract(contract)
    for procedure in archive.procedures:
        title = f"Procedure {procedure.number}: {procedure.task}"
        yield f"procedures/{procedure.number:02}", title, _of_procedure(procedure)
    for notice in archive.notices:
        yield f"notices/{notice.number:02}", f"Notice {notice.number}", _of_notice(notice)
    for number in range(18):
        yield f"minutes/{number + 1:02}", f"Minutes of meeting {number + 1}", _of_meeting(archive, number)


def _of_person(person: Person) -> list[str]:
    above = f"The supervisor of {person.name} is {person.supervisor}." if person.supervisor else ""
    return [
        f"{person.name} is {person.role} in the department {person.department}.",
        f"The office of {person.name} is {person.office}.",
        f"The phone extension of {person.name} is {person.phone}.",
        f"{person.name} has worked at the harbour since {person.since}. {above}".strip(),
    ]


def _of_ship(ship: Ship) -> list[str]:
    return [
        f"The {ship.name} is a {ship.kind} of {ship.tonnes} tonnes, built in {ship.built}.",
        f"The home pier of the {ship.name} is pier {ship.pier}.",
        f"The captain of the {ship.name} is {ship.captain}.",
    ]


def _of_contract(contract: Contract) -> list[str]:
    return [
        f"Contract {contract.number} with {contract.partner} is about {contract.subject}.",
        f"The value of contract {contract.number} is {contract.crowns} crowns.",
        f"Contract {contract.number} was signed by {contract.signed_by} and ends on {contract.ends}.",
    ]


def _of_procedure(procedure: Procedure) -> list[str]:
    return [
        f"This procedure is about {procedure.task}. The department {procedure.owner} is responsible for it.",
        f"Whoever is {procedure.task} fills in form {procedure.form}.",
        f"The limit for {procedure.task} is {procedure.limit}.",
    ]


def _of_notice(notice: Notice) -> list[str]:
    if isinstance(notice.about, Person):
        return [f"Notice {notice.number} to all departments.", f"The office of {notice.about.name} is {notice.value}."]
    return [f"Notice {notice.number} to all departments.", f"The limit for {notice.about.task} is {notice.value}."]


def _of_meeting(archive: Archive, number: int) -> list[str]:
    present = [archive.people[(number * 5 + i) % len(archive.people)].name for i in range(4)]
    return [f"Present were {', '.join(present)}.", f"The next meeting is in room {300 + number}, with cake."]


def _write_markdown(path: Path, title: str, text: list[str]) -> None:
    path.with_suffix(".md").write_text(f"# {title}\n\n" + "\n\n".join(text) + "\n")


def _write_text(path: Path, title: str, text: list[str]) -> None:
    path.with_suffix(".txt").write_text("\n".join([title, "", *text]) + "\n")


def _write_html(path: Path, title: str, text: list[str]) -> None:
    body = "".join(f"<p>{escape(each)}</p>\n" for each in text)
    head = f"<!doctype html><html><head><title>{escape(title)}</title></head>"
    path.with_suffix(".html").write_text(f"{head}<body><h1>{escape(title)}</h1>\n{body}</body></html>\n")


def _write_docx(path: Path, title: str, text: list[str]) -> None:
    document = Document()
    document.add_heading(title, 1)
    for each in text:
        document.add_paragraph(each)
    document.save(str(path.with_suffix(".docx")))


_WRITERS = (_write_markdown, _write_text, _write_html, _write_docx)
