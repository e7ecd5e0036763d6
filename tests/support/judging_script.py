"""A scripted judge of answers that come from elsewhere: points and choices by words in the answers."""

import json
from collections.abc import Callable, Mapping
from math import log

from support.fake_engines import ANALYSIS, last_message
from support.scripted_engine import Json, Script


def answers_shown(body: Json) -> dict[str, str]:
    """The answers in a judge's prompt, by letter."""
    parts = last_message(body).split("[answer ")[1:]
    return {part[0]: part.split("]\n", 1)[1].split("\n[end ")[0] for part in parts}


def is_grading(body: Json) -> bool:
    return "Now give points" in last_message(body)


def judging(points: Mapping[str, int], front: float = 0.0) -> Callable[[Json], Script]:
    """A judge that gives so many points for a word, and prefers more of them; `front` is what it adds for the first place."""

    def worth(text: str) -> int:
        return next((each for word, each in points.items() if word in text), 0)

    def script(body: Json) -> Script:
        shown = answers_shown(body)
        if is_grading(body):
            (text,) = shown.values()
            wanted = body["response_format"]["json_schema"]["schema"]["properties"]
            given = {
                name: {
                    "reason": f"it says {text.split()[0]}",
                    "points": min(worth(text), each["properties"]["points"]["maximum"]),
                }
                for name, each in wanted.items()
            }
            return Script((json.dumps(given),))
        if "Now compare the answers" in last_message(body):
            return Script((json.dumps(ANALYSIS),))
        letters = body["structured_outputs"]["choice"]
        weights = {letter: worth(shown[letter]) + 0.1 + front * (letter == "A") for letter in letters}
        total = sum(weights.values())
        top = [{"token": letter, "logprob": log(weight / total)} for letter, weight in weights.items()]
        best = max(top, key=lambda each: float(str(each["logprob"])))
        return Script((str(best["token"]),), logprobs=({**best, "top_logprobs": top},))

    return script
