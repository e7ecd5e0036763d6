"""SQL over files: what comes back from SQLite and DuckDB, and that every query only reads."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from cappella.tools.base import ToolResult
from cappella.tools.builtin.sql import Sql
from support.databases import make_duckdb, make_sqlite

Make = Callable[..., Path]

ORDERS = (
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, amount REAL, scan BLOB)",
    "INSERT INTO orders VALUES (1, 'Ann', 9.5, NULL), (2, 'Bob|Co', 20, CAST('ab' AS BLOB))",
)


async def started(*files: Path) -> Sql:
    server = Sql("shop", files)
    await server.start()
    await server.started()
    return server


async def asked(server: Sql, sql: str, database: str = "") -> ToolResult:
    return await server.call("query", {"sql": sql, "database": database})


@pytest.mark.parametrize("make", [make_sqlite, make_duckdb])
async def test_rows_come_back_as_a_table(make: Make, tmp_path: Path) -> None:
    server = await started(make(tmp_path / "shop.db", *ORDERS))
    assert server.problem is None
    result = await asked(server, "SELECT id, customer, amount, scan FROM orders ORDER BY id")
    assert result.text.splitlines() == [
        "| id | customer | amount | scan |",
        "| --- | --- | --- | --- |",
        "| 1 | Ann | 9.5 | NULL |",
        "| 2 | Bob\\|Co | 20.0 | [2 bytes] |",
    ]
    assert "[no rows]" in (await asked(server, "SELECT * FROM orders WHERE id > 5")).text


@pytest.mark.parametrize("make", [make_sqlite, make_duckdb])
async def test_the_schema_is_that_of_the_tables(make: Make, tmp_path: Path) -> None:
    server = await started(make(tmp_path / "shop.db", *ORDERS, "CREATE TABLE other (x INTEGER)"))
    whole = await server.call("schema", {})
    assert whole.text.count("CREATE TABLE") == 2
    one = await server.call("schema", {"table": "Other"})
    assert one.text.startswith("CREATE TABLE other")
    assert (await server.call("schema", {"table": "nope"})).text == "There is no such table."


@pytest.mark.parametrize("make", [make_sqlite, make_duckdb])
async def test_what_is_left_out_is_counted(make: Make, tmp_path: Path) -> None:
    rows = ", ".join(f"({each})" for each in range(250))
    server = await started(make(tmp_path / "n.db", "CREATE TABLE n (x INTEGER)", f"INSERT INTO n VALUES {rows}"))
    lines = (await asked(server, "SELECT x FROM n ORDER BY x")).text.splitlines()
    assert lines[-2:] == ["| 99 |", "[150 rows left out: count or group them in SQL]"]
    wide = (await asked(server, "SELECT replace(hex(x), '', '') || substr('" + "y" * 390 + "', 1) FROM n")).text
    assert len(wide) < 11_000
    assert "rows left out" in wide
    assert "more than 10,000 rows" in (await asked(server, "SELECT a.x FROM n a, n b, n c")).text


async def test_a_long_value_is_cut_and_says_so(tmp_path: Path) -> None:
    server = await started(make_sqlite(tmp_path / "n.db", "CREATE TABLE n (x)"))
    assert "… [600 more characters]" in (await asked(server, "SELECT printf('%01000d', 0)")).text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM words WHERE words MATCH 'hello'",
        "SELECT count(*) FROM box WHERE a < 5",
        "SELECT value FROM json_each('[7]')",
        "PRAGMA table_info(words)",
        "EXPLAIN QUERY PLAN SELECT 1",
    ],
)
async def test_sqlites_own_tables_and_facts_can_be_read(sql: str, tmp_path: Path) -> None:
    file = make_sqlite(
        tmp_path / "w.db",
        "CREATE VIRTUAL TABLE words USING fts5(text)",
        "INSERT INTO words VALUES ('hello world')",
        "CREATE VIRTUAL TABLE box USING rtree(i, a, b)",
    )
    result = await asked(await started(file), sql)
    assert not result.is_error, result.text


async def test_a_database_is_named_where_there_are_several(tmp_path: Path) -> None:
    server = await started(
        make_sqlite(tmp_path / "a.db", "CREATE TABLE t (x)"),
        make_duckdb(tmp_path / "b.duckdb", "CREATE TABLE t (y INT)"),
    )
    assert "Databases: a, b." in server.tools[0].description
    refused = await asked(server, "SELECT 1")
    assert refused.is_error
    assert "a, b" in refused.text
    assert (await asked(server, "SELECT y FROM t", "b")).text.startswith("| y |")


async def test_a_database_in_wal_mode_is_read_while_another_writes_it(tmp_path: Path) -> None:
    file = make_sqlite(tmp_path / "w.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
    server = await started(file)
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("INSERT INTO t VALUES (5)")
        writer.commit()
        writer.execute("INSERT INTO t VALUES (6)")
        assert (await asked(server, "SELECT count(*) FROM t")).text.endswith("| 1 |")
        writer.commit()
        assert (await asked(server, "SELECT count(*) FROM t")).text.endswith("| 2 |")


async def test_a_file_that_goes_is_a_problem_until_it_is_back(tmp_path: Path) -> None:
    file = make_sqlite(tmp_path / "a.db", "CREATE TABLE t (x)")
    server = await started(file)
    file.rename(tmp_path / "away")
    assert server.problem is not None
    assert str(file) in server.problem
    assert server.tools == ()
    assert (await asked(server, "SELECT 1")).is_error
    (tmp_path / "away").rename(file)
    assert server.problem is None
    assert not (await asked(server, "SELECT 1")).is_error


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 2000, b"\0" * 8 + b"DUCK" * 999]
)
async def test_a_file_that_is_no_database_is_a_problem(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    file.write_bytes(content)
    server = await started(file)
    assert server.problem is not None
    assert str(file) in server.problem


@pytest.mark.parametrize("make", [make_sqlite, make_duckdb])
async def test_queries_run_side_by_side(make: Make, tmp_path: Path) -> None:
    server = await started(make(tmp_path / "shop.db", *ORDERS))
    results: Sequence[ToolResult] = await asyncio.gather(*(asked(server, f"SELECT {each}") for each in range(6)))
    assert [result.text.splitlines()[-1] for result in results] == [f"| {each} |" for each in range(6)]


async def test_a_query_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    server = await started(make_sqlite(tmp_path / "n.db", "CREATE TABLE n (x)"))
    before = children()
    task = asyncio.create_task(
        asked(server, "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r")
    )
    while children() == before:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def test_a_file_that_is_no_database_serves_once_it_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    file.write_bytes(b"no database at all" * 100)
    server = await started(file)
    assert server.problem is not None
    assert "replace it" in server.problem
    make_sqlite(tmp_path / "new.db", *ORDERS).replace(file)
    assert server.problem is None
    assert "Ann" in (await asked(server, "SELECT customer FROM orders")).text
