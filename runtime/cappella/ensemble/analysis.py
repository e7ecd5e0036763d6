"""The judge's analysis as it is read from its reply: points that are sentences, and answers' names for letters."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cappella.ensemble import prompts
from cappella.ensemble.run import Analysis
from cappella.errors import EngineUnusable
from cappella.types import Message

_JOINED = r"(?:,\s*(?:and|or)\s+|,\s*|\s*[/&;]\s*|\s+(?:and|or)\s+)"
_NOUN = r"(?:[Tt]he\s+)?\b[Aa](?:nswer|ssistant)s?|(?:[Tt]he\s+)?\b(?:[Rr]esponse|[Cc]andidate)s?"
_SAYS = (
    "adds|agrees?|argues?|claims?|covers?|describes?|disagrees?|explains?|gives?|lists?|mentions?|notes?|offers?|omits?|"
    "points out|recommends?|says?|states?|suggests?|uses?"
)
_CHOICE_LINE = re.compile(r"^[^\S\n]*+\(?[A-Z][).:]\s", re.MULTILINE)
_CHOICE_CHARS = 20_000
"""Of the end of a question, where choices stand."""


def with_names(lettered: Any, labels: Mapping[str, str], conversation: Sequence[Message] = ()) -> Analysis:
    """The analysis with answers' names for letters, in its texts too. Raises EngineUnusable for an unknown letter or another shape.

    Texts on a question that offers lettered choices keep their letters, which are those of the choices.
    """
    question = prompts.text_of(conversation[-1])[-_CHOICE_CHARS:] if conversation else ""
    has_choices = len(_CHOICE_LINE.findall(question)) > 1

    def text(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"expected a string, got {type(value).__name__}")
        return value if has_choices else _named(value, labels)

    try:
        return {
            "consensus": [text(point) for point in lettered["consensus"]],
            "contradictions": [
                {
                    "topic": text(each["topic"]),
                    "stances": [{"model": labels[s["model"]], "stance": text(s["stance"])} for s in each["stances"]],
                }
                for each in lettered["contradictions"]
            ],
            "partial_coverage": [
                {"models": [labels[label] for label in each["models"]], "point": text(each["point"])}
                for each in lettered["partial_coverage"]
            ],
            "unique_insights": [
                {"model": labels[each["model"]], "insight": text(each["insight"])}
                for each in lettered["unique_insights"]
            ],
            "blind_spots": [text(point) for point in lettered["blind_spots"]],
        }
    except (KeyError, TypeError) as error:
        message = f"the judge's analysis does not match its schema: {error!r}"
        raise EngineUnusable(message, "judge_schema_mismatch") from error


def without_letters(lettered: Any, labels: Mapping[str, str]) -> tuple[Any, int]:
    """The analysis without points that are letters of answers and nothing else, and how many those were.

    The stance of an answer may be a letter: that of a choice.
    """
    sections = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
    points = {"contradictions": "topic", "partial_coverage": "point", "unique_insights": "insight"}
    letters = re.compile(rf"\W*(?:(?:{_NOUN})\s+)?{_list(labels)}\W*")

    def says_something(section: str, point: Any) -> bool:
        text = point[points[section]] if section in points else point
        return letters.fullmatch(text) is None

    # A server that does not hold the judge to its schema may let it add others.
    kept = {name: [each for each in lettered[name] if says_something(name, each)] for name in sections}
    return kept, sum(len(lettered[name]) - len(each) for name, each in kept.items())


def _named(text: str, labels: Mapping[str, str]) -> str:
    """The text with names where it speaks of answers by their letters: `answers A and C`, `B says`."""
    several = _list(labels, at_least=2)
    spoken = rf"(?:{_NOUN})\s+(?P<after>{_list(labels)})\b|\A(?P<first>{several})(?=\s+[a-z])"
    spoken += rf"|\A(?P<one>{_letter(labels)})(?=\s+(?:{_SAYS})\b)"

    def names(match: re.Match[str]) -> str:
        letters = match["after"] or match["first"] or match["one"]
        return re.sub(rf"\b{_letter(labels)}\b", lambda each: labels[each[0]], letters)

    return re.sub(spoken, names, text)


def _letter(labels: Mapping[str, str]) -> str:
    return f"[{''.join(labels)}]" if labels else "(?!)"


def _list(labels: Mapping[str, str], at_least: int = 1) -> str:
    return rf"\b{_letter(labels)}\b(?:{_JOINED}{_letter(labels)}\b){{{at_least - 1},}}"
