"""What vLLM's chat API has beyond OpenAI's: tokens per event, grammars in one spelling, counts of tokens."""

from typing import Any

import orjson

from cappella.engines import openai
from cappella.errors import EngineBroke
from cappella.types import Json, OutputFormat, Prompt, Sampling

# Tokens per event of an answer that nobody reads as it comes. The first and the last come at once all the same; what a
# cut answer loses is less than this.
UNWATCHED_INTERVAL_TOKENS = 16

# With so many streams at once, a token at a time is more than one gateway can hand on: then two, with twice as many
# three, and no more than four. At 400 runs p99 between two tokens was 14 ms longer than at the engine, and 42 without.
CONGESTED_STREAMS = 48
MAX_TOKENS_WATCHED = 4

# JSON in one spelling, `json.dumps`'s. Where a grammar lets white space be, a small model may write nothing else:
# of 80 answers to random schemas 72 ran to their limit that way, and none with this.
SPACING = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}


def body(model: str, prompt: Prompt, sampling: Sampling, crowd: int = 0) -> dict[str, Any]:
    """A streamed chat request to an engine that has `crowd` others under way."""
    out = openai.body(model, prompt, sampling)
    if prompt.output_format is not None:
        out[prompt.output_format.field] = _spaced(prompt.output_format)
    interval = min(MAX_TOKENS_WATCHED, 1 + crowd // CONGESTED_STREAMS) if prompt.watched else UNWATCHED_INTERVAL_TOKENS
    # Not with tools: many of vLLM's tool parsers were written for streams that grow token by token.
    if interval > 1 and not prompt.tools:
        out["stream_interval"] = interval
    return out


def _spaced(output_format: OutputFormat) -> Json:
    """The format's value; its JSON schema, if it has one, allows only one way to space JSON."""
    value = output_format.value
    if output_format.field == "structured_outputs":
        schema: Any = {"type": "object"} if value.get("json_object") else value.get("json")
        schema = orjson.loads(schema) if isinstance(schema, str) else schema
        return value if schema is None else {"json": {**schema, **SPACING}}
    plain: Any = {"name": "object", "schema": {"type": "object"}}
    named: Any = value["json_schema"] if value["type"] == "json_schema" else plain
    return {"type": "json_schema", "json_schema": {**named, "schema": {**named["schema"], **SPACING}}}


def token_count(reply: bytes) -> int:
    try:
        return int(orjson.loads(reply)["count"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise EngineBroke("the engine counted no tokens") from error
