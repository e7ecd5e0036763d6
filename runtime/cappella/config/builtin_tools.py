"""Tools in the box, as a config names them."""

from pathlib import Path
from typing import Literal

from cappella.types import Frozen

Builtin = Literal["calculator", "clock", "python", "sql"]


class BuiltinTool(Frozen):
    """A tool in the box: `files` are the databases of `sql`, `time_zone` that of the `clock`."""

    builtin: Builtin
    files: tuple[Path, ...] = ()
    time_zone: str | None = None
