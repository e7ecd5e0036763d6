"""Small databases for tests."""

import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb


def make_sqlite(path: Path, *statements: str) -> Path:
    """A SQLite file that these statements made."""
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


def make_duckdb(path: Path, *statements: str) -> Path:
    """A DuckDB file that these statements made."""
    with duckdb.connect(path) as database:
        for statement in statements:
            database.execute(statement)
    return path
