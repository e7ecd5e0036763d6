"""What the parts of a config are made of."""

import re
from typing import Annotated

from pydantic import BeforeValidator, ByteSize, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _whole(value: object) -> object:
    """pydantic reads the beginning of a text as a size and ignores the rest."""
    if isinstance(value, str) and not re.fullmatch(r"\s*(\d*\.)?\d+\s*[A-Za-z]*\s*", value):
        raise ValueError(f"{value!r} is not a size: write it as 24GiB or 700MB")
    return value


Bytes = Annotated[ByteSize, BeforeValidator(_whole)]
