"""The results as a table in Markdown."""

from collections.abc import Sequence

from clients.table import CLIENTS
from clients.trial import Row

HEAD = """# Clients

Each client was installed from its registry into an environment of its own and run, as it is, against the real gateway
(`scripts/test_clients`; `clients.json` has the same with the whole refusals). The models are scripted: an agent's task is to
read a file, change a word, and read it again. `URL` is the server, `MODEL` is `cappella/default`; the key may be any word.

| client | version | set up | result | first refusal |
|---|---|---|---|---|
"""


def table(rows: Sequence[Row]) -> str:
    return HEAD + "".join(_line(row) for row in rows)


def _line(row: Row) -> str:
    refusal = row.get("refusal")
    refused = f"{refusal['request']}: {refusal['status']} {refusal['reply'][:200]}" if refusal else ""
    cells = (row["client"], row["version"], f"`{_cell(CLIENTS[row['client']].setup)}`", _result(row), refused)
    return f"| {' | '.join(map(_cell, cells))} |\n"


def _result(row: Row) -> str:
    if "skipped" in row:
        return f"not installed: {row['skipped'][:120]}"
    wrong = [name for name, result in row["checks"].items() if result != "ok"]
    held = len(row["checks"]) - len(wrong)
    return f"{held} of {len(row['checks'])}" + (f"; not: {', '.join(wrong)}" if wrong else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
