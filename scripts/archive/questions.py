"""Questions about the archive, with a pattern of what a right answer has."""

import re
from collections.abc import Iterator
from random import Random

from archive.world import Archive, Person

NOTHING = r"(?i)\b(no|not|cannot|can't|couldn't|unable|nothing|isn't|doesn't|don't|none|unknown)\b"
COUNTS = {"one document": 40, "two documents": 30, "contradiction": 15, "nothing there": 15}
HOW = "Answer in one or two sentences."


def questions(archive: Archive, seed: int) -> list[dict[str, str]]:
    """As many of each category as `COUNTS` says, the same for a seed."""
    rng = Random(seed)
    asked = {
        "one document": list(_of_one(archive)),
        "two documents": list(_of_two(archive)),
        "contradiction": list(_contradictory(archive)),
        "nothing there": list(_without_answer(archive)),
    }
    return [
        {"prompt": f"{prompt} {HOW}", "answer": answer, "category": category, "id": f"{category} {number + 1}"}
        for category, every in asked.items()
        for number, (prompt, answer) in enumerate(rng.sample(every, COUNTS[category]))
    ]


def _of_one(archive: Archive) -> Iterator[tuple[str, str]]:
    for person in archive.people:
        yield f"What is the phone extension of {person.name}?", _exactly(person.phone)
    for ship in archive.ships:
        yield f"Who is the captain of the {ship.name}?", _exactly(ship.captain)
        yield f"In which year was the {ship.name} built?", _exactly(str(ship.built))
    for contract in archive.contracts:
        yield f"On which date does contract {contract.number} end?", _exactly(contract.ends)
    for procedure in archive.procedures:
        yield f"Which form is filled in for {procedure.task}?", _exactly(procedure.form)


def _of_two(archive: Archive) -> Iterator[tuple[str, str]]:
    by_name = {person.name: person for person in archive.people}
    for person in archive.people:
        if person.supervisor:
            question = f"What is the phone extension of the supervisor of {person.name}?"
            yield question, _exactly(by_name[person.supervisor].phone)
    for ship in archive.ships:
        question = f"What is the phone extension of the captain of the {ship.name}?"
        yield question, _exactly(by_name[ship.captain].phone)
    for contract in archive.contracts:
        question = f"In which department does the person work who signed contract {contract.number}?"
        yield question, _exactly(by_name[contract.signed_by].department)


def _contradictory(archive: Archive) -> Iterator[tuple[str, str]]:
    """Right is an answer that names both."""
    for notice in archive.notices:
        if isinstance(notice.about, Person):
            yield f"In which office is {notice.about.name}?", _both(notice.about.office, notice.value)
        else:
            yield f"What is the limit for {notice.about.task}?", _both(notice.about.limit, notice.value)


def _without_answer(archive: Archive) -> Iterator[tuple[str, str]]:
    for name in archive.nobody:
        yield f"What is the phone extension of {name}?", NOTHING


def _exactly(value: str) -> str:
    return rf"(?i)(^|\W){re.escape(value)}($|\W)"


def _both(one: str, other: str) -> str:
    one, other = re.escape(one.split()[0]), re.escape(other.split()[0])
    return rf"(?is)\b{one}\b.*\b{other}\b|\b{other}\b.*\b{one}\b"
