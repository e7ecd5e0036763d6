"""Requests for embeddings and scores: their shape, how many texts they hold, and the body that vLLM gets."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cappella.types import Json, Positive

CHARS_OF_A_TOKEN = 4

Token = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]
Text = Annotated[str, Field(strict=True)]
Texts = Annotated[list[Text], Field(min_length=1)]
Tokens = Annotated[list[Token], Field(min_length=1)]


class PoolingRequest(BaseModel):
    """A request to a model that writes nothing. Fields that are not declared go to the engine as its policy says."""

    model_config = ConfigDict(extra="ignore")

    model: str

    @property
    def texts(self) -> int:
        """The texts that the engine reads, each as a sequence."""
        raise NotImplementedError

    @property
    def chars(self) -> int:
        """The characters of all of them; one that is read with each of several others counts each time."""
        raise NotImplementedError

    def sent(self, wire: Json) -> Json:
        """The body for the engine; `wire` itself if that is the same."""
        return wire


class EmbeddingsRequest(PoolingRequest):
    """OpenAI's: one text or several, also as token ids."""

    input: Text | Tokens | Texts | Annotated[list[Tokens], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None
    user: str | None = None

    @property
    def texts(self) -> int:
        return 1 if isinstance(self.input, str) or isinstance(self.input[0], int) else len(self.input)

    @property
    def chars(self) -> int:
        return _chars(self.input)


class Document(BaseModel):
    """A document as Cohere's and Jina's clients may send it."""

    text: Text


class RerankRequest(PoolingRequest):
    """Cohere's and Jina's, as vLLM has it: the documents, best first; all of them without `top_n`."""

    query: Text
    documents: Annotated[list[Text | Document], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=0)] | None = None
    return_documents: bool | None = None

    @property
    def texts(self) -> int:
        return len(self.documents)

    @property
    def chars(self) -> int:
        return len(self.query) * len(self.documents) + _chars(self._documents)

    @property
    def _documents(self) -> list[str]:
        return [each if isinstance(each, str) else each.text for each in self.documents]

    def sent(self, wire: Json) -> Json:
        rest = {name: value for name, value in wire.items() if name != "return_documents"}
        return {**rest, "documents": self._documents}


_PAIRS = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))


class ScoreRequest(PoolingRequest):
    """vLLM's, in each of its spellings: one query for all documents, or one for each."""

    queries: Text | Texts
    documents: Text | Texts

    @model_validator(mode="before")
    @classmethod
    def _in_one_spelling(cls, wire: Any) -> Any:
        if not isinstance(wire, Mapping):
            return wire
        pairs = [pair for pair in _PAIRS if all(wire.get(name) is not None for name in pair)]
        if len(pairs) > 1:
            raise ValueError(f"send either {' and '.join(pairs[0])} or {' and '.join(pairs[1])}")
        return {**wire, "queries": wire[pairs[0][0]], "documents": wire[pairs[0][1]]} if pairs else wire

    @model_validator(mode="after")
    def _are_pairs(self) -> "ScoreRequest":
        if len(_listed(self.queries)) not in (1, self.texts):
            raise ValueError(f"queries has {len(self.queries)} entries: it may have one, or as many as documents")
        return self

    @property
    def texts(self) -> int:
        return len(_listed(self.documents))

    @property
    def chars(self) -> int:
        queries = _listed(self.queries)
        return _chars(queries) * (self.texts if len(queries) == 1 else 1) + _chars(self.documents)

    def sent(self, wire: Json) -> Json:
        spellings = {name for pair in _PAIRS for name in pair}
        rest = {name: value for name, value in wire.items() if name not in spellings}
        return {**rest, "queries": self.queries, "documents": self.documents}


class ClassifyRequest(PoolingRequest):
    """vLLM's, for a reward model: the score of the last turn of a conversation, or of texts as they are."""

    messages: Annotated[list[Json], Field(min_length=1)] | None = None
    input: Text | Texts | None = None

    @model_validator(mode="after")
    def _has_one(self) -> "ClassifyRequest":
        if (self.messages is None) == (self.input is None):
            raise ValueError("send either messages or input")
        return self

    @property
    def texts(self) -> int:
        return 1 if self.input is None else len(_listed(self.input))

    @property
    def chars(self) -> int:
        # The limits on messages hold for these.
        return _chars(self.input or [])


def _listed(texts: str | Sequence[str]) -> Sequence[str]:
    return [texts] if isinstance(texts, str) else texts


def _chars(texts: Any) -> int:
    if isinstance(texts, str):
        return len(texts)
    return sum(CHARS_OF_A_TOKEN if isinstance(each, int) else _chars(each) for each in texts)
