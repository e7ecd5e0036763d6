"""The `documents` section of a config: folders that members and judges may search."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cappella.config.fields import Name
from cappella.types import Frozen


class Documents(Frozen):
    """A folder of documents with its index. `embedder` and `reranker` are models of the config."""

    folder: Path
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = ("en",)
    embedder: Name | None = None
    reranker: Name | None = None
    index: Path | None = None
