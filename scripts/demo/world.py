"""A made-up company: its handbook, skills, and questions about both. Standard library only.

A question has one to three parts. A part is a fact of the handbook (the price of a product, the room of a person) or
a small procedure (a sum, letters in order). Every part has exactly one right sentence, so every question has exactly one right answer.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

SYLLABLES = (
    "ba be bo da de do fa fi ga go ka ke ki ko la le li lo lu ma me mi mo na ne ni no pa pe po ra re ri ro sa se si so"
    " ta te ti to tu va ve vi vo za ze zo"
).split()
ENDINGS = "l n r s x nd rt sk m th".split()
TEAMS = "tools sales legal design supply data safety energy field press".split()

# Noun phrases that ask for a fact, the canonical one first, and the sentence that answers.
ATTRIBUTES: dict[str, tuple[tuple[str, ...], str]] = {
    "room": (("the room of {e}", "{e}'s room", "the office of {e}"), "{e} sits in room {v}."),
    "team": (("the team of {e}", "{e}'s team", "the group of {e}"), "{e} works in the {v} team."),
    "extension": (("the extension of {e}", "{e}'s extension", "the phone number of {e}"), "{e} has extension {v}."),
    "price": (("the price of {e}", "{e}'s price", "the cost of {e}"), "{e} costs {v} dollars."),
    "warranty": (("the warranty of {e}", "{e}'s warranty", "the guarantee on {e}"), "{e} has {v} months of warranty."),
    "lead": (("the lead of {e}", "{e}'s lead", "the person who leads {e}"), "{e} is led by {v}."),
    "floor": (("the floor of {e}", "{e}'s floor", "the storey of {e}"), "{e} is on floor {v}."),
    "notice": (("the notice for {e}", "{e}'s notice", "the notice period for {e}"), "{e} needs {v} days of notice."),
}
KINDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "person": (54, ("room", "team", "extension")),
    "product": (42, ("price", "warranty")),
    "project": (33, ("lead", "floor")),
    "rule": (24, ("notice",)),
}
SKILLS = ("sum", "larger", "minutes", "order")
TRAINING_WRAPPERS = (
    "What is {x}?",
    "Tell me {x}.",
    "Please give me {x}.",
    "I need {x}.",
    "Do you know {x}?",
    "Look up {x}.",
    "We want to know {x}.",
    "Can you say what is {x}?",
)
HELD_OUT_WRAPPERS = ("Please tell me {x}.", "Do you know what is {x}?", "I want to know {x}.", "Can you give me {x}?")
MEMBERS = ("soprano", "alto", "tenor")
SKILLS_OF = {"soprano": ("sum", "larger"), "alto": ("order",), "tenor": ("minutes", "larger")}


@dataclass(frozen=True)
class Part:
    """One part of a question: an attribute or a skill, ways to ask for it, and the sentence that answers it."""

    kind: str
    phrases: tuple[str, ...]
    sentence: str

    @property
    def key(self) -> str:
        return f"{self.kind}: {self.phrases[0]}"

    @property
    def is_fact(self) -> bool:
        return self.kind in ATTRIBUTES

    @property
    def unknown(self) -> str:
        """The answer of a model that does not know it."""
        return f"I do not know {self.phrases[0]}."


@dataclass(frozen=True)
class Question:
    text: str
    parts: tuple[Part, ...]

    @property
    def answer(self) -> str:
        return " ".join(part.sentence for part in self.parts)


def name(rng: Random) -> str:
    """A made-up proper name."""
    return ("".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3)))) + rng.choice(ENDINGS)).capitalize()


def value(attribute: str, rng: Random) -> str:
    match attribute:
        case "room" | "extension":
            return str(rng.randint(100, 999))
        case "price":
            return str(rng.randint(11, 99))
        case "warranty" | "floor" | "notice":
            return str(rng.randint(2, 60))
        case "team":
            return rng.choice(TEAMS)
        case _:
            return name(rng)


def fact(attribute: str, entity: str, rng: Random) -> Part:
    """A fact with a random value."""
    phrases, sentence = ATTRIBUTES[attribute]
    answer = value(attribute, rng)
    return Part(attribute, tuple(p.format(e=entity) for p in phrases), sentence.format(e=entity, v=answer))


def skill(kind: str, rng: Random) -> Part:
    """A procedural part with random operands."""
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    match kind:
        case "sum":
            phrases = (f"the sum of {a} and {b}", f"{a} plus {b}")
            sentence = f"{a} plus {b} is {a + b}."
        case "larger":
            phrases = (f"the larger of {a} and {b}", f"the greater of {a} and {b}")
            sentence = f"The larger of {a} and {b} is {max(a, b)}."
        case "minutes":
            hours = rng.randint(2, 40)
            phrases = (f"{hours} hours in minutes", f"the minutes in {hours} hours")
            sentence = f"{hours} hours are {hours * 60} minutes."
        case _:
            letters = rng.sample("abcdefghijklmnopqrstuvwxyz", 4)
            phrases = (f"the order of {' '.join(letters)}", f"{' '.join(letters)} in order")
            sentence = f"In order, {' '.join(letters)} is {' '.join(sorted(letters))}."
    return Part(kind, phrases, sentence)


class Handbook:
    """The company's facts, equal for equal seeds, and the members that learn each of them."""

    def __init__(self, seed: int = 7) -> None:
        rng = Random(seed)
        self.entities: dict[str, tuple[str, frozenset[str]]] = {}
        self.facts: dict[str, list[Part]] = {}
        for kind, (count, attributes) in KINDS.items():
            for number in range(count):
                entity = self._fresh_name(rng)
                # Two thirds of the entities are in one member's part, one third in two members' parts.
                size = 2 if number % 3 == 2 else 1
                readers = frozenset(MEMBERS[(number // 3 + number + step) % 3] for step in range(size))
                self.entities[entity] = (kind, readers)
                self.facts[entity] = [fact(attribute, entity, rng) for attribute in attributes]

    def known_by(self, member: str) -> list[Part]:
        return [part for e, (_, readers) in self.entities.items() if member in readers for part in self.facts[e]]

    @property
    def all(self) -> list[Part]:
        return [part for parts in self.facts.values() for part in parts]

    def made_up(self, rng: Random) -> Part:
        """A part about an entity that is not in the handbook."""
        _, attributes = KINDS[rng.choice(list(KINDS))]
        return fact(rng.choice(attributes), self._fresh_name(rng), rng)

    def _fresh_name(self, rng: Random) -> str:
        while (candidate := name(rng)) in self.entities:
            pass
        return candidate


def is_held_out(parts: Sequence[Part]) -> bool:
    """Whether this combination of parts is held out from training: one in eight, chosen by hash.

    Single facts are never held out, since they could not be learned otherwise; single procedures may be.
    """
    if len(parts) == 1 and parts[0].is_fact:
        return False
    key = "|".join(sorted(part.key for part in parts))
    return hashlib.sha256(key.encode()).digest()[0] % 8 == 0


def ask(parts: Sequence[Part], rng: Random, wrappers: Sequence[str] = TRAINING_WRAPPERS) -> Question:
    """A question for these parts with random wording."""
    phrases = [rng.choice(part.phrases) for part in parts]
    joined = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    text = rng.choice(wrappers).format(x=joined)
    return Question(text, tuple(parts))


def draw(rng: Random, pick: Callable[[], Part], held_out: bool = False) -> list[Part]:
    """One to three different parts, whose combination is held out or not as given."""
    size = rng.choices((1, 2, 3), (3, 4, 3))[0]
    while True:
        parts = [pick() for _ in range(size)]
        single_fact = len(parts) == 1 and parts[0].is_fact
        if len({part.key for part in parts}) == len(parts) and (single_fact or is_held_out(parts) == held_out):
            return parts


def held_out_questions(count: int, seed: int = 2026) -> list[Question]:
    """Questions with wordings and combinations of parts that no model was trained on."""
    rng, handbook = Random(seed), Handbook()
    facts = handbook.all

    def pick() -> Part:
        return skill(rng.choice(SKILLS), rng) if rng.random() < 0.2 else rng.choice(facts)

    return [ask(draw(rng, pick, held_out=True), rng, HELD_OUT_WRAPPERS) for _ in range(count)]
