"""How much to think, as the Messages API says it, and the form of the answer in its `output_config`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from cappella.gateway.formats.fields import Wire
from cappella.types import OutputFormat, Positive

LOW_BUDGET_TOKENS = 4096
MEDIUM_BUDGET_TOKENS = 16384
"""Budgets below these are a low and a medium effort; models here know no budget, but an effort."""


class Thinking(Wire):
    """`adaptive` leaves the effort to `output_config`, and else to the models."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Positive | None = None


class JsonFormat(Wire):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Wire):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


def effort_of(thinking: Thinking | None, config: OutputConfig | None) -> str | None:
    """The effort that both ask for together."""
    if thinking and thinking.type == "disabled":
        return "none"
    if config and config.effort:
        return "xhigh" if config.effort == "max" else config.effort
    if not thinking or thinking.type == "adaptive" or thinking.budget_tokens is None:
        return None
    budget = thinking.budget_tokens
    return "low" if budget < LOW_BUDGET_TOKENS else "medium" if budget < MEDIUM_BUDGET_TOKENS else "high"


def output_format_of(wanted: JsonFormat | None) -> OutputFormat | None:
    if wanted is None:
        return None
    return OutputFormat(
        "response_format", {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted.schema_}}
    )
