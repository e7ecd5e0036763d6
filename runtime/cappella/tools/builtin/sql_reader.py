"""Answers one SQL query from one SQLite or DuckDB file, read-only. A script: see sql.py.

`sql_reader.py FILE TIME_LIMIT_S MEMORY_BYTES` reads JSON from standard input: `{"sql": ...}`, or `{"schema": TABLE}`, and prints text.
An error that the model is told is exit code 3, with its text on standard error. Only the standard library, and duckdb for its files.
"""

import ctypes
import json
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

REFUSED = 3
MAX_ROWS = 100
MAX_COUNTED_ROWS = 10_000
MAX_TABLE_CHARS = 10_000
MAX_CELL_CHARS = 400
MAX_VALUE_BYTES = 16 << 20
MAX_WRITTEN_BYTES = 1 << 20
"""SQLite keeps a file of shared memory beside a database in WAL mode; nothing else is written."""
STEPS = 10_000
PR_SET_PDEATHSIG = 1
# Of SQLite's authorizer.
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
PRAGMAS = {
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "data_version",
}
FORBIDDEN_FUNCTIONS = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"}
ONLY_READING = "Only reading is allowed: one SELECT statement, without ATTACH, PRAGMA or anything that writes."
TOO_LARGE = "The query needs too much memory: ask for less."
TOO_LONG = "The query took too long, and was ended: ask for less, or use an index."


class Refused(Exception):
    """What the model is told."""


def main(path: str, time_limit_s: str, memory: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    seconds = float(time_limit_s)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 2, int(seconds) + 3))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_WRITTEN_BYTES, MAX_WRITTEN_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = json.load(sys.stdin)
    try:
        answer = (_duckdb if _is_duckdb(path) else _sqlite)(path, asked, seconds)
        sys.stdout.buffer.write(answer.encode(errors="replace"))
    except Refused as error:
        _refuse(str(error))
    except MemoryError:
        _refuse(TOO_LARGE)


def _refuse(text: str) -> None:
    sys.stderr.buffer.write(text.encode(errors="replace"))
    sys.stderr.flush()
    sys.exit(REFUSED)


def _is_duckdb(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(12)[8:] == b"DUCK"


def _sqlite(path: str, asked: dict[str, str], seconds: float) -> str:
    try:
        database = _opened(path)
        deadline = time.monotonic() + seconds
        try:
            _connect_virtual_tables(database)
            database.set_authorizer(_allowed)
            # A true result interrupts.
            database.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
            if "sql" not in asked:
                tables = database.execute(
                    "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type = 'index', name"
                )
                return _schema(tables, asked["schema"])
            cursor = database.execute(asked["sql"])
            if not cursor.description:
                raise Refused(ONLY_READING)
            return _table([each[0] for each in cursor.description], cursor)
        finally:
            database.close()
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        raise Refused(_told(str(error))) from None


def _opened(path: str) -> sqlite3.Connection:
    """The database, read-only. In a folder that cannot be written, one in WAL mode opens only as one that nobody changes."""
    address = f"file:{quote(path)}?mode=ro"
    log = Path(f"{path}-wal")
    for options in ("", "&immutable=1"):
        database = sqlite3.connect(address + options, uri=True, timeout=2)
        try:
            for setting in (
                "query_only=ON",
                "trusted_schema=OFF",
                "cell_size_check=ON",
                "temp_store=MEMORY",
                "mmap_size=0",
            ):
                database.execute(f"PRAGMA {setting}")
            database.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
        except sqlite3.OperationalError as error:
            database.close()
            if options or "unable to open" not in str(error) or (log.exists() and log.stat().st_size):
                raise
        else:
            break
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    database.text_factory = lambda content: content.decode(errors="replace")
    return database


def _connect_virtual_tables(database: sqlite3.Connection) -> None:
    """Some prepare statements that write, of which none runs here: the authorizer would refuse those."""
    names = database.execute("SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL TABLE%'").fetchall()
    for (name,) in names:
        quoted = name.replace('"', '""')
        # One whose module is not here fails when it is asked for.
        with suppress(sqlite3.Error):
            database.execute(f'SELECT 1 FROM "{quoted}" LIMIT 0')


def _allowed(action: int, first: str | None, second: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if (second or "").lower() in FORBIDDEN_FUNCTIONS else sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA:
        asks = (first or "").lower() in PRAGMAS or (first == "page_size" and second is None)
        return sqlite3.SQLITE_OK if asks else sqlite3.SQLITE_DENY
    # SQLite asks this while a virtual table is connected, and refuses every real change of its schema.
    connects = action == sqlite3.SQLITE_UPDATE and first == "sqlite_master"
    return sqlite3.SQLITE_OK if action in READING or connects else sqlite3.SQLITE_DENY


def _told(error: str) -> str:
    if any(
        words in error for words in ("not authorized", "denied", "prohibited", "one statement", "readonly", "modified")
    ):
        return f"{ONLY_READING} ({error})"
    return TOO_LONG if error == "interrupted" else error


def _duckdb(path: str, asked: dict[str, str], seconds: float) -> str:
    try:
        import duckdb
    except ImportError:
        raise Refused("This is a DuckDB file, and duckdb is not installed: pip install 'cappella[tools]'") from None
    settings: dict[str, Any] = {
        "access_mode": "READ_ONLY",
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "memory_limit": "512MB",
        "threads": "1",
        "temp_directory": "",
        "max_temp_directory_size": "0B",
        "lock_configuration": "true",
    }
    try:
        with duckdb.connect(path, config=settings) as database:
            timer = threading.Timer(seconds, database.interrupt)
            timer.daemon = True
            timer.start()
            try:
                return _of_duckdb(duckdb, database, asked)
            finally:
                timer.cancel()
    except duckdb.InterruptException:
        raise Refused(TOO_LONG) from None
    except duckdb.OutOfMemoryException:
        raise Refused(TOO_LARGE) from None
    except duckdb.Error as error:
        raise Refused(str(error)) from None


def _of_duckdb(duckdb: Any, database: Any, asked: dict[str, str]) -> str:
    if "sql" not in asked:
        views = "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal"
        return _schema(
            database.execute(f"SELECT table_name, sql FROM duckdb_tables() UNION ALL {views} ORDER BY 1").fetchall(),
            asked["schema"],
        )
    statements = database.extract_statements(asked["sql"])
    readers = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if len(statements) != 1 or statements[0].type not in readers:
        raise Refused(ONLY_READING)
    if statements[0].type == duckdb.StatementType.SELECT:
        found = database.sql(asked["sql"]).limit(MAX_ROWS + MAX_COUNTED_ROWS + 1)
        return _table(found.columns, found.fetchall())
    cursor = database.execute(asked["sql"])
    return "\n".join(str(row[-1]) for row in cursor.fetchall())[:MAX_TABLE_CHARS]


def _schema(tables: Iterable[Sequence[str]], name: str) -> str:
    """What makes the tables, and how many were left out."""
    shown, left, size = [], 0, 0
    for table, sql in tables:
        if name and table.lower() != name.lower():
            continue
        size += len(sql)
        if size <= MAX_TABLE_CHARS:
            shown.append(f"{sql.rstrip(';')};")
        else:
            left += 1
    if left:
        shown.append(f"[{left:,} more left out: ask for one with `table`]")
    return "\n".join(shown) or ("There is no such table." if name else "The database has no tables.")


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table of the first rows, and how many were left out."""
    lines = [_line(columns), _line(["---"] * len(columns))]
    size, shown, left = sum(map(len, lines)), 0, 0
    for row in rows:
        line = _line([_cell(each) for each in row]) if not left and shown < MAX_ROWS else ""
        if line and size + len(line) <= MAX_TABLE_CHARS:
            lines.append(line)
            size, shown = size + len(line), shown + 1
        else:
            left += 1
            if left > MAX_COUNTED_ROWS:
                break
    if left > MAX_COUNTED_ROWS:
        lines.append(f"[more than {MAX_COUNTED_ROWS:,} rows left out: count or group them in SQL]")
    elif left:
        lines.append(f"[{left:,} rows left out: count or group them in SQL]")
    elif not shown:
        lines.append("[no rows]")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value):,} bytes]"
    text = str(value)
    more = f"… [{len(text) - MAX_CELL_CHARS:,} more characters]" if len(text) > MAX_CELL_CHARS else ""
    return text[:MAX_CELL_CHARS].replace("|", "\\|").replace("\r", "").replace("\n", "\\n") + more


if __name__ == "__main__":
    main(*sys.argv[1:])
