"""vLLM's API of models that write nothing: the paths of each task, bodies that ask for scores and embeddings, and replies."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import orjson

from cappella.engines.base import Embeddings, Score
from cappella.errors import EngineBroke
from cappella.types import Json, Message, Usage
from cappella.vocabulary import Task

PATHS_OF: Mapping[Task, frozenset[str]] = {
    "embed": frozenset({"/v1/embeddings", "/rerank", "/score"}),
    "rerank": frozenset({"/rerank", "/score"}),
    "reward": frozenset({"/classify"}),
}
"""An embedding model ranks and scores by the cosine of two embeddings."""
PATHS = frozenset().union(*PATHS_OF.values())
PROBES: Mapping[Task, tuple[str, Json]] = {
    "embed": ("/v1/embeddings", {"input": "Hello"}),
    "rerank": ("/score", {"queries": "Hello", "documents": "Hello"}),
    "reward": ("/classify", {"input": "Hello"}),
}
"""The smallest call of each task."""


def question(task: Task, messages: Sequence[Message], answer: Message) -> tuple[str, Json]:
    """The path and the body, without the model, that ask for the score of an answer to a conversation.

    A reward model reads both as its chat template writes them; a reranker the conversation as a query, and the answer as a
    document. Without an activation function, since that makes scores equal that are far from 0.
    """
    if task == "reward":
        return "/classify", {"messages": [*messages, answer], "use_activation": False}
    return "/score", {"queries": as_query(messages), "documents": answer["content"], "use_activation": False}


def as_query(messages: Sequence[Message]) -> str:
    """A conversation as one text: a single turn as it is, several with their roles."""
    texts = [(str(message["role"]), _text(message.get("content"))) for message in messages]
    return texts[0][1] if len(texts) == 1 else "\n\n".join(f"{role}: {text}" for role, text in texts)


def _text(content: Any) -> str:
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    return "\n".join(str(part.get("text", "")) for part in parts)


def score(reply: bytes) -> Score:
    """The score in a reply to `question`. Raises EngineBroke if there is none."""
    try:
        body = orjson.loads(reply)
        (entry,) = body["data"]
        value = float(entry["score"] if "score" in entry else _only(entry["probs"]))
        usage = Usage(prompt_tokens=int((body.get("usage") or {}).get("prompt_tokens") or 0))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineBroke("the engine returned no score") from error
    if not isfinite(value):
        raise EngineBroke(f"the engine returned a score of {value}")
    return Score(value, usage)


def embedding(texts: Sequence[str]) -> tuple[str, Json]:
    """The path and the body, without the model, that ask for the embeddings of texts, each cut to the model's context."""
    return "/v1/embeddings", {"input": list(texts), "encoding_format": "float", "truncate_prompt_tokens": -1}


def embeddings(reply: bytes, count: int) -> Embeddings:
    """So many embeddings in a reply to `embedding`. Raises EngineBroke if they are not there."""
    try:
        body = orjson.loads(reply)
        by_place = {int(entry["index"]): [float(each) for each in entry["embedding"]] for entry in body["data"]}
        vectors = [by_place[at] for at in range(count)]
        usage = Usage(prompt_tokens=int((body.get("usage") or {}).get("prompt_tokens") or 0))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineBroke("the engine returned no embeddings") from error
    if len({len(vector) for vector in vectors}) > 1 or not all(isfinite(sum(vector)) for vector in vectors):
        raise EngineBroke("the engine returned embeddings that cannot be compared")
    return Embeddings(vectors, usage)


def _only(values: Sequence[float]) -> float:
    (value,) = values
    return value
