"""The limits on one request, with the reason for each: the checks, their errors and the documents are made from this table."""

from pydantic import ConfigDict

from cappella.types import Frozen, Positive


class Limits(Frozen):
    """What one request may ask for at most. A request beyond a limit is a 400 that names the limit."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    messages: Positive = 2048
    """Messages, or input items. Each is copied, checked and escaped for each model."""
    parts: Positive = 4096
    """Parts of all messages together. Each costs as much as a message."""
    images: Positive = 64
    """Images. Each is read, decoded and encoded by a vision model before the first token."""
    depth: Positive = 64
    """Levels of the body. Parsers and chat templates use a level of their stack for each."""
    values: Positive = 100_000
    """Values in the body's objects and lists, at any depth; token ids of a prompt do not count. Each is walked, checked and copied."""
    samples: Positive = 16
    """Answers of a direct call: `n` for each of its prompts. Each takes a sequence of the engine."""
    answers: Positive = 64
    """Answers of a run's members: `samples` of all seats, for each of its `layers`."""
    inputs: Positive = 2048
    """Texts of a call for embeddings or scores: its inputs, or its documents. Each is a sequence of the engine."""
    input_chars: Positive = 2_000_000
    """Characters of all of these; a query counts for each of its documents, a token for four. One core reads them all."""
    judge_calls: Positive = 256
    """Calls of one judgement: one for the analysis, one for the scores of each answer, two for each pair, up to 8 for a ranking."""
    judge_chars: Positive = 8_000_000
    """Characters that all of these read: the question in each, and one answer, two, or all. The judge reads what no cache has."""
    stops: Positive = 16
    """Stop texts. All are looked for after each token."""
    stop_chars: Positive = 256
    """Characters of a stop text. So many are held back from a stream."""
    tools: Positive = 128
    """Tools. All stand in the prompt of each model."""
    form_bytes: Positive = 512 << 10
    """Bytes of tools and output formats together. They are copied for each call, and compiled by the engine."""
    schema_bytes: Positive = 64 << 10
    """Bytes of one schema. The engine compiles it while others wait."""
    schema_depth: Positive = 32
    """Levels of a schema as it is written."""
    reference_depth: Positive = 128
    """Levels of a schema with each `$ref` followed. At some 1,000 references in a row the engine's compiler crashes."""
    schema_items: Positive = 10_000
    """The sum of `minItems`, `maxItems` and `prefixItems` of all schemas, with each `$ref` followed. The compiler takes up to
    2 kB of memory for each: with 1,000,000,000 all that a machine has."""
    properties: Positive = 400
    """Properties of one object. At 499 optional ones the engine's matcher gives up, in the middle of the answer."""
    patterns: Positive = 256
    """Patterns of all schemas together. Each is compiled to an automaton."""
    pattern_chars: Positive = 2048
    """Characters of a pattern, regular expression or grammar."""
    choices: Positive = 1024
    """Choices of an output format. They are one alternative each of a grammar."""
    choice_bytes: Positive = 64 << 10
    """Bytes of all choices together."""
