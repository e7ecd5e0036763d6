"""What is stored of a call gives the same answer as the call, and the same key only for the same question."""

from dataclasses import replace

import orjson
import pytest

from cappella.batch import steps
from cappella.engines.base import Embeddings, Score
from cappella.ensemble.call import Completion
from cappella.errors import EngineContextExceeded, EngineRejected
from cappella.threads import MAX_INLINE_CHARS
from cappella.types import Chunk, OutputFormat, Prompt, Sampling, ToolCall, Usage

PROMPT = Prompt([{"role": "user", "content": "Hi"}])
CHUNKS = [
    Chunk(reasoning="Let me "),
    Chunk(reasoning="see."),
    Chunk("\n\nYes", logprobs=[{"token": "Yes", "logprob": -0.1}]),
    Chunk(" and", sample=1),
    Chunk(tool_calls=[ToolCall(0, "id", "look", '{"a"')]),
    Chunk(tool_calls=[ToolCall(0, arguments=": 1}")]),
    Chunk(finish_reason="stop", stop_sequence="END"),
    Chunk(" no", finish_reason="length", sample=1),
    Chunk(usage=Usage(9, 4, 3, 2), tokens_per_step=1.5),
]


def stored(step: object) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(orjson.dumps(step))
    return found


def completed(chunks: list[Chunk], sample: int) -> dict[str, object]:
    completion = Completion()
    for chunk in chunks:
        if chunk.sample == sample:
            completion.add(chunk)
    return {**vars(completion), "_content": [completion.text], "_reasoning": ["".join(completion._reasoning)]}


@pytest.mark.parametrize("sample", [0, 1])
def test_a_completion_is_the_same_from_its_step(sample: int) -> None:
    found = steps.chunks_of(stored(steps.from_chunks(CHUNKS)))
    assert completed(found, sample) == completed(CHUNKS, sample)
    assert [chunk.usage for chunk in found if chunk.usage] == [Usage(9, 4, 3, 2)]
    assert [chunk.tokens_per_step for chunk in found if chunk.tokens_per_step] == [1.5]


def test_scores_and_embeddings_are_the_same_from_their_steps() -> None:
    score, vectors = Score(0.1, Usage(3)), Embeddings([[0.1, 1e-9], [2.0, 3.0]], Usage(5))
    assert steps.score_of(stored(steps.from_score(score))) == score
    assert steps.embeddings_of(stored(steps.from_embeddings(vectors))) == vectors


@pytest.mark.parametrize("error", [EngineRejected("no", 422), EngineContextExceeded("too long", 400)])
def test_a_refusal_is_raised_again_as_it_was(error: EngineRejected) -> None:
    with pytest.raises(type(error)) as raised:
        steps.require_no_refusal(stored(steps.from_refusal(error)))
    assert (type(raised.value), str(raised.value)) == (type(error), str(error))
    assert raised.value.status_code == error.status_code


def test_a_key_tells_questions_apart_and_does_not_depend_on_who_watches() -> None:
    asked = [
        (PROMPT, Sampling()),
        (PROMPT, Sampling(seed=1)),
        (replace(PROMPT, samples=2), Sampling()),
        (replace(PROMPT, output_format=OutputFormat("structured_outputs", {"choice": ["a"]})), Sampling()),
        (Prompt([{"role": "user", "content": "Ho"}]), Sampling()),
    ]
    keys = {steps.chat_key(model, *each) for each in asked for model in "ab"}
    assert len(keys) == len(asked) * 2
    watched, unwatched = (steps.chat_key("a", replace(PROMPT, watched=each), Sampling()) for each in (True, False))
    assert watched == unwatched
    assert steps.key_of("score", "a", PROMPT, "x") != steps.key_of("score", "a", PROMPT, "y")


WORDS = "It is so. " * 20_000
NUMBERS = [round(0.001 * i, 3) for i in range(40_000)]
SPENT = {"prompt_tokens": 9, "total_tokens": 13, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
SPENT_TOO = {"input_tokens": 9, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 1}}
OTHER = {"prompt_tokens": 70, "completion_tokens": 80, "total_tokens": 150}
FUSION = {"usage": OTHER, "calls": [{"model": "ann", "usage": OTHER}]}
CHOICES = [{"index": 0, "message": {"role": "assistant", "content": WORDS}}]


@pytest.mark.parametrize(
    ("reply", "is_pooling"),
    [
        ({"object": "chat.completion", "choices": CHOICES, "usage": SPENT, "fusion": FUSION}, False),
        ({"object": "chat.completion", "choices": CHOICES, "usage": SPENT, "prompt_token_ids": [7] * 90_000}, False),
        ({"object": "text_completion", "choices": [{"text": WORDS}], "usage": SPENT}, False),
        ({"type": "message", "content": [{"text": WORDS}], "usage": SPENT_TOO, "fusion": FUSION}, False),
        ({"object": "response", "output": [{"text": WORDS}], "usage": SPENT_TOO, "fusion": FUSION}, False),
        ({"object": "list", "data": [{"embedding": NUMBERS}], "usage": SPENT}, True),
        ({"object": "list", "data": [{"score": each} for each in NUMBERS], "usage": SPENT}, True),
        ({"data": [{"label": "a", "probs": NUMBERS, "num_classes": 40_000}], "usage": SPENT}, True),
        ({"usage": SPENT, "results": [{"index": 0, "document": {"text": '"usage": {"a": 1}' + WORDS}}]}, True),
    ],
)
def test_the_counts_of_a_large_reply_are_those_of_its_usage(reply: dict[str, object], is_pooling: bool) -> None:
    body = orjson.dumps(reply)
    assert len(body) > MAX_INLINE_CHARS
    usage = reply["usage"]
    assert isinstance(usage, dict)
    counts = {name: count for name, count in usage.items() if isinstance(count, int)}
    assert steps.counts_of_reply(body, is_pooling) == counts
    assert steps.counts_of_reply(orjson.dumps(reply, option=orjson.OPT_INDENT_2), is_pooling) == counts
