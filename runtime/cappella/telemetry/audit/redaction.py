"""Replaces matches of the operator's patterns in logged content."""

import re
from collections.abc import Sequence
from typing import Any

REDACTED = "[redacted]"


def redact(value: Any, patterns: Sequence[re.Pattern[str]]) -> Any:
    """A copy of the JSON value with every match in its strings replaced; object keys are not changed."""
    match value:
        case str():
            for pattern in patterns:
                value = pattern.sub(REDACTED, value)
            return value
        case list():
            return [redact(item, patterns) for item in value]
        case dict():
            return {name: redact(item, patterns) for name, item in value.items()}
    return value
