"""The results as a table in Markdown."""

from collections.abc import Sequence

from clients.table import CLIENTS
from clients.trial import Row

HEAD = """# Clients

Each client was installed from its registry into an environment of its own and run, as it is, against the real gateway
(`scripts/test_clients`; `clients.json` has the same with the whole refusals). `URL` is the server, `MODEL` is
`cappella/default`; the key may be any word.

Scripted models: an agent's task is to read a file, change a word, and read it again. Real weights
(`scripts/test_clients --weights DIR`): `cappella serve` over SmolLM2-135M-Instruct and Qwen2.5-Coder-0.5B-Instruct on two CPU
cores; what only a clever model does, as calling a tool when it is free to, is not asked of them, and an agent need only come
to its end without a refused request.

| client | version | set up | scripted models | real weights | first refusal |
|---|---|---|---|---|---|
"""


def table(rows: Sequence[Row]) -> str:
    return HEAD + "".join(_line(row) for row in rows)


def _line(row: Row) -> str:
    refusal = row.get("refusal")
    refused = f"{refusal['request']}: {refusal['status']} {refusal['reply'][:200]}" if refusal else ""
    setup = f"`{_cell(CLIENTS[row['client']].setup)}`"
    cells = (row["client"], row["version"], setup, _result(row), _real(row), refused)
    return f"| {' | '.join(map(_cell, cells))} |\n"


def _real(row: Row) -> str:
    """The result on real weights, and what was not asked of them."""
    if "real" not in row:
        return "not run"
    asked, scripted = row["real"].get("checks", {}), row.get("checks", {})
    left_out = [name for name in scripted if name not in asked]
    is_agent = "the file is right" in scripted
    return _result(row["real"]) + ("" if is_agent or not left_out else f"; not asked: {', '.join(left_out)}")


def _result(row: Row) -> str:
    if "skipped" in row:
        return f"not installed: {row['skipped'][:120]}"
    if "checks" not in row:
        return "not run"
    wrong = [name for name, result in row["checks"].items() if result != "ok"]
    held = len(row["checks"]) - len(wrong)
    return f"{held} of {len(row['checks'])}" + (f"; not: {', '.join(wrong)}" if wrong else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
