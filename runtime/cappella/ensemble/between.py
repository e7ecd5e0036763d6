"""What stands in a judge's prompt between the answers and the instruction: what members found, and what it looked up itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cappella.types import Message


@dataclass(frozen=True, slots=True)
class Between:
    """Paragraphs after the answers, and the judge's own calls of tools with what they gave, as turns of their own."""

    paragraphs: Sequence[str] = ()
    lookups: Sequence[Message] = ()


NOTHING = Between()


def extend(conversation: Sequence[Message], paragraphs: Sequence[str], between: Between = NOTHING) -> list[Message]:
    """The conversation with the paragraphs after it; the messages before the last stay as they are.

    They join the last user message, since many chat templates refuse two user messages in a row. What is `between` follows
    the first of them.
    """
    first, *rest = paragraphs
    if not between.lookups:
        return _joined(conversation, [first, *between.paragraphs, *rest])
    asked = [{"role": "user", "content": "\n\n".join(rest)}] if rest else []
    return [*_joined(conversation, [first, *between.paragraphs]), *between.lookups, *asked]


def _joined(conversation: Sequence[Message], paragraphs: Sequence[str]) -> list[Message]:
    text = "\n\n".join(paragraphs)
    *head, last = conversation
    if last["role"] != "user":
        return [*conversation, {"role": "user", "content": text}]
    content: Any = last["content"]
    joined: Any = (
        f"{content}\n\n{text}" if isinstance(content, str) else [*content, {"type": "text", "text": f"\n\n{text}"}]
    )
    return [*head, {**last, "content": joined}]
