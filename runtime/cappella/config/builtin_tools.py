"""Tools in the box, as a config names them."""

from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import field_validator, model_validator

from cappella.types import Frozen

Builtin = Literal["calculator", "clock", "python", "sql"]


class BuiltinTool(Frozen):
    """A tool in the box: `files` are the databases of `sql`, `time_zone` that of the `clock`, by default the machine's."""

    builtin: Builtin
    files: tuple[Path, ...] = ()
    time_zone: str | None = None

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        if name is None or name.upper() == "UTC":
            return name
        try:
            ZoneInfo(name)
        except (ValueError, OSError, LookupError):
            if not available_timezones():
                raise ValueError("this machine has no time zone data: install the package tzdata") from None
            raise ValueError(f"there is no time zone {name!r}: use a name as Europe/Berlin, or UTC") from None
        return name

    @model_validator(mode="after")
    def _own_options(self) -> "BuiltinTool":
        if self.files and self.builtin != "sql":
            raise ValueError(f"{self.builtin} reads no files: remove files, or use builtin: sql")
        if self.time_zone is not None and self.builtin != "clock":
            raise ValueError(f"{self.builtin} has no time zone: remove time_zone, or use builtin: clock")
        if self.builtin == "sql" and not self.files:
            raise ValueError("sql needs databases: name SQLite or DuckDB files under files")
        stems = [path.stem for path in self.files]
        if twice := {stem for stem in stems if stems.count(stem) > 1}:
            raise ValueError(f"two files are called {min(twice)}: a database has the name of its file")
        return self
