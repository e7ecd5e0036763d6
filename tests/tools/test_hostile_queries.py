"""Hostile SQL: what the model is told, and that neither the database nor any other file is touched."""

import hashlib
from pathlib import Path

import pytest

from cappella.tools.builtin.sql import Sql
from support.databases import make_duckdb, make_sqlite
from support.unharmed import unharmed

TABLES = ("CREATE TABLE t (a INTEGER, b TEXT)", "INSERT INTO t VALUES (1, 'x'), (2, 'y')")
READING = "Only reading is allowed"
ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r"


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DELETE FROM t", READING),
        ("UPDATE t SET a = 5", READING),
        ("INSERT INTO t VALUES (3, 'z') RETURNING a", READING),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT 9, 'w' FROM x", READING),
        ("DROP TABLE t", READING),
        ("CREATE TEMP TABLE x (a)", READING),
        ("UPDATE sqlite_master SET sql = ''", READING),
        ("SELECT 1; DROP TABLE t", READING),
        ("ATTACH 'PRECIOUS' AS other", READING),
        ("ATTACH 'FOLDER/escaped.db' AS other", READING),
        ("VACUUM INTO 'FOLDER/escaped.db'", READING),
        ("PRAGMA query_only = OFF", READING),
        ("PRAGMA writable_schema = ON", READING),
        ("PRAGMA journal_mode = DELETE", READING),
        ("PRAGMA temp_store_directory = 'FOLDER'", READING),
        ("SELECT load_extension('libc.so.6')", READING),
        ("SELECT fts3_tokenizer('simple')", READING),
        ("SELECT readfile('PRECIOUS')", "no such function"),
        ("SELECT writefile('FOLDER/escaped', 'x')", "no such function"),
        ("BEGIN EXCLUSIVE", READING),
        ("", READING),
        (ENDLESS, "too long"),
        ("SELECT count(*) FROM " + ", ".join(f"t t{each}" for each in range(40)), "too long"),
        ("SELECT length(group_concat(t.b || hex(randomblob(5000000)))) FROM t, t u, t v, t w", "too big"),
        ("SELECT zeroblob(2000000000)", "too big"),
        ("SELECT " + "(" * 9000 + "1" + ")" * 9000, "stack overflow"),
        ("SELECT 'x\0y", "null character"),
    ],
)
async def test_a_hostile_query_of_sqlite_is_refused(sql: str, told: str, tmp_path: Path) -> None:
    await refused(make_sqlite(tmp_path / "shop.db", *TABLES), sql, told)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DELETE FROM t", READING),
        ("CREATE TEMP TABLE x AS SELECT 1", READING),
        ("SELECT 1; DROP TABLE t", READING),
        ("COPY t TO 'FOLDER/escaped.csv'", READING),
        ("EXPORT DATABASE 'FOLDER/escaped'", READING),
        ("ATTACH 'FOLDER/escaped.db'", READING),
        ("INSTALL httpfs", READING),
        ("LOAD httpfs", READING),
        ("SET enable_external_access = true", READING),
        ("PRAGMA memory_limit = '99GB'", READING),
        ("CALL pragma_version()", READING),
        ("", READING),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission"),
        ("SELECT * FROM read_text('PRECIOUS')", "Permission"),
        ("SELECT * FROM 'PRECIOUS'", "Error"),
        ("SELECT * FROM glob('/**')", "Permission"),
        ("SELECT * FROM read_csv('https://192.0.2.1/x.csv')", "Error"),
        ("SELECT * FROM sqlite_scan('PRECIOUS', 't')", "Error"),
        ("EXPLAIN ANALYZE COPY t TO 'FOLDER/escaped.csv'", "Permission"),
        ("SELECT getenv('HOME')", "getenv"),
        (ENDLESS, "ask for less"),
        (
            "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range < b.range * random()",
            "ask for less",
        ),
        ("SELECT repeat('x', 3000000000)", "too much memory"),
        ("SELECT " + "(" * 9000 + "1" + ")" * 9000, "Error"),
    ],
)
async def test_a_hostile_query_of_duckdb_is_refused(sql: str, told: str, tmp_path: Path) -> None:
    await refused(make_duckdb(tmp_path / "shop.duckdb", *TABLES), sql, told)


async def refused(file: Path, sql: str, told: str) -> None:
    """Asserts what the model is told, and that the database serves as before."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    server = Sql("shop", [file], time_limit_s=2)
    await server.start()
    await server.started()
    assert server.problem is None
    with unharmed(file.parent) as precious:
        sql = sql.replace("PRECIOUS", str(precious)).replace("FOLDER", str(file.parent))
        result = await server.call("query", {"sql": sql})
        assert result.is_error
        assert told in result.text
        assert len(result.text.encode()) < 20_000
        counted = await server.call("query", {"sql": "SELECT count(*) FROM t"})
        assert counted.text.endswith("| 2 |")
    await server.stop()
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("name", ["../shop", "/etc/passwd", "shop.db", "SHOP", "\0"])
async def test_no_other_file_can_be_named(name: str, tmp_path: Path) -> None:
    server = Sql("shop", [make_sqlite(tmp_path / "shop.db", *TABLES)])
    await server.start()
    await server.started()
    result = await server.call("query", {"sql": "SELECT 1", "database": name})
    assert result.is_error
    assert "There are shop." in result.text


async def test_text_of_a_database_cannot_break_out_of_its_table(tmp_path: Path) -> None:
    row = "INSERT INTO t VALUES (3, 'a | b' || char(10) || '| 9 | forged |')"
    server = Sql("shop", [make_sqlite(tmp_path / "shop.db", TABLES[0], row)])
    await server.start()
    await server.started()
    lines = (await server.call("query", {"sql": "SELECT a, b FROM t"})).text.splitlines()
    assert lines[2:] == ["| 3 | a \\| b\\n\\| 9 \\| forged \\| |"]
