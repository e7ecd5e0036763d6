"""Read-only SQL over SQLite and DuckDB files. Each query is a process of its own, with limits of time, memory and result."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cappella.tools import child
from cappella.tools.base import Details
from cappella.tools.builtin.base import Arguments, BuiltinServer, Places, Refused
from cappella.types import Json

SCRIPT = Path(__file__).with_name("sql_reader.py")
MAX_SQL_CHARS = 20_000
MAX_PRINTED_BYTES = 256 << 10
MAX_AT_ONCE = 4
REFUSED = 3
TIME_LIMIT_S = 10.0
STARTING_S = 20.0
"""For Python and the database's library, on a busy machine."""
MEMORY_BYTES = 3 << 30
"""Of addresses: DuckDB reserves more than it uses, which is 512 MiB at most."""

Database = Annotated[str, Field(max_length=200, description="The database, by its name; needed if there are several")]


Stamp = tuple[int, int, int] | None
"""Of a file that another replaces it changes."""


class Query(Arguments):
    """Ask a database with one SELECT statement. The result is a table of at most 100 rows: aggregate in SQL."""

    sql: Annotated[str, Field(max_length=MAX_SQL_CHARS)]
    database: Database = ""


class Schema(Arguments):
    """The tables of a database, as the statements that make them."""

    database: Database = ""
    table: Annotated[str, Field(max_length=200, description="Only this table")] = ""


class Sql(BuiltinServer[Query | Schema]):
    """Reads the databases in `files`; each has the name of its file without the ending."""

    details = Details("a process with limits for each query")

    def __init__(self, name: str, files: Sequence[Path], time_limit_s: float = TIME_LIMIT_S) -> None:
        super().__init__(name, {"query": Query, "schema": Schema})
        self._files = {file.stem: file for file in files}
        self._time_limit_s = time_limit_s
        self._unreadable: dict[Path, tuple[Stamp, str]] = {}
        self._places = Places(MAX_AT_ONCE)

    @property
    def problem(self) -> str | None:
        missing = next((file for file in self._files.values() if not file.is_file()), None)
        if missing:
            return f"there is no file {missing}: put it there, or remove it from files"
        unreadable = (why for file, (stamp, why) in self._unreadable.items() if _stamp(file) == stamp)
        return super().problem or next(unreadable, None)

    def _description(self, tool: str) -> str:
        return f"{super()._description(tool)} Databases: {', '.join(self._files)}."

    async def _prepare(self) -> str | None:
        for name, file in self._files.items():
            # One that is missing now may come later.
            stamp = _stamp(file)
            try:
                if stamp:
                    await self._read(name, {"schema": ""})
            except Refused as error:
                self._unreadable[file] = stamp, f"{file} cannot be read ({error}): replace it"
        return None

    async def _answer(self, arguments: Query | Schema) -> str:
        name = arguments.database or (next(iter(self._files)) if len(self._files) == 1 else "")
        if name not in self._files:
            raise Refused(f"There is no database {name!r}. There are {', '.join(self._files)}.")
        return await self._read(
            name, {"sql": arguments.sql} if isinstance(arguments, Query) else {"schema": arguments.table}
        )

    async def _read(self, name: str, asked: Json) -> str:
        command = [sys.executable, "-I", "-B", str(SCRIPT), str(self._files[name].absolute())]
        command += [str(self._time_limit_s), str(MEMORY_BYTES)]
        wall_s = self._time_limit_s + STARTING_S
        async with self._places.one():
            with tempfile.TemporaryDirectory(prefix="cappella-sql-") as folder:
                env = {"HOME": folder, "PATH": os.defpath}
                ended = await child.run(command, json.dumps(asked).encode(), folder, env, wall_s, MAX_PRINTED_BYTES)
        if ended.code == 0 and not ended.limit:
            return ended.printed.decode(errors="replace")
        if ended.code == REFUSED:
            raise Refused(ended.errors.decode(errors="replace"))
        raise Refused("The query took too much time or memory, and was ended: ask for less.")


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
