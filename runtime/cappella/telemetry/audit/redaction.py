"""What is logged of a conversation, without what the operator wants kept out of it."""

import re
from collections.abc import Sequence
from typing import Any

REDACTED = "[redacted]"


def redacted(value: Any, patterns: Sequence[re.Pattern[str]]) -> Any:
    """The same JSON with every match in every text of it replaced; keys of objects stay."""
    match value:
        case str():
            for pattern in patterns:
                value = pattern.sub(REDACTED, value)
            return value
        case list():
            return [redacted(each, patterns) for each in value]
        case dict():
            return {name: redacted(each, patterns) for name, each in value.items()}
    return value
