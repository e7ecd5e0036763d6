"""The rows of a batch that suffers faults: questions, and rows that are malformed, too long, refused or that hang."""

import json
from typing import Any

QUESTIONS = (
    "Please tell me the room of Gonil, the price of Tunagox and the lead of Tatim.",
    "I want to know the cost of Komor, the lead of Bogand and Lulinan's floor.",
    "Please tell me the minutes in 28 hours and the extension of Finevis.",
    "Can you give me Dekosk's room, the office of Ninin and the phone number of Gonil?",
)
KINDS = {
    "panel": "a question to the ensemble: 200",
    "one": "a question to one model: 200",
    "malformed": "a field that requests do not have: 400",
    "long": "a question of 6,000 words: 400",
    "refused": "a token that the engine does not have: 400",
    "hang": "a deadline of a second: 200 or 504",
}
_EVERY = {7: "one", 11: "malformed", 13: "long", 17: "refused", 19: "hang"}
"""Each so many rows; the others are of the panel."""
_RIGHT = {"panel": (200,), "one": (200,), "malformed": (400,), "long": (400,), "refused": (400,), "hang": (200, 504)}


def lines_of(turn: int, count: int) -> bytes:
    """The input file of the batch number `turn`; its custom ids begin with the kind of the row."""
    return b"".join(_line(turn * count + number) for number in range(1, count + 1))


def is_right(kind: str, response: dict[str, Any]) -> bool:
    return response["status_code"] in _RIGHT[kind]


def _line(number: int) -> bytes:
    kind = next((kind for every, kind in _EVERY.items() if number % every == 0), "panel")
    question = f"{QUESTIONS[number % len(QUESTIONS)]} ({number})"
    body: dict[str, Any] = {"model": "cappella/default", "max_completion_tokens": 64}
    if kind in ("one", "refused"):
        body["model"] = "alto"
    changes: dict[str, dict[str, Any]] = {
        "malformed": {"fusion": {"quorum": 9}},
        "refused": {"logit_bias": {"99999999": 5}},
        "hang": {"fusion": {"deadline_seconds": 1}},
    }
    words = "word " * 6000 if kind == "long" else ""
    body |= {"messages": [{"role": "user", "content": words + question}], **changes.get(kind, {})}
    row = {"custom_id": f"{kind}-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(row).encode() + b"\n"
