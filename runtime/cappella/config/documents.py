"""The `documents` section of a config: folders that members and judges may search."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from cappella.config.fields import Name
from cappella.types import Frozen

INDEX_APPLICATION_ID = 0x43_44_4F_43
"""By which SQLite's files are known as indexes of documents."""
LANGUAGES = frozenset(
    "ar bg ca cs da de el en es et eu fa fi fr ga he hi hr hu id is it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv th tr uk vi zh".split()
)
"""The languages of documents, by ISO 639-1."""


def _known(language: str) -> str:
    if language not in LANGUAGES:
        raise ValueError(f"{language!r} is not a language here: use {', '.join(sorted(LANGUAGES))}")
    return language


class Documents(Frozen):
    """A folder of documents with its index, a file. `embedder` and `reranker` are models of the config.

    A search gives at most `max_passages`: a small model reads few better than many. After these it gives at most `related` ones
    of other documents that name what the best of them name.
    """

    folder: Path
    languages: Annotated[tuple[Annotated[str, AfterValidator(_known)], ...], Field(min_length=1)] = ("en",)
    embedder: Name | None = None
    reranker: Name | None = None
    index: Path | None = None
    max_passages: Annotated[int, Field(ge=1, le=10)] = 5
    related: Annotated[int, Field(ge=0, le=5)] = 2
