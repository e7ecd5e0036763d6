"""Field types shared by the parts of a config."""

import re
from typing import Annotated

from pydantic import BeforeValidator, ByteSize, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _check_size(value: object) -> object:
    """Rejects trailing text, which pydantic's ByteSize would ignore."""
    if isinstance(value, str) and not re.fullmatch(r"\s*(\d*\.)?\d+\s*[A-Za-z]*\s*", value):
        raise ValueError(f"{value!r} is not a size: write it as 24GiB or 700MB")
    return value


Bytes = Annotated[ByteSize, BeforeValidator(_check_size)]
