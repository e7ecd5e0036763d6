"""`cappella documents`: index and search the documents of a config without a server, or serve them to agents."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cappella.cli.completion import CONFIG
from cappella.cli.errors import App, one_line_errors
from cappella.errors import CappellaError, ConfigError

if TYPE_CHECKING:
    from cappella.config import Documents
    from cappella.tools.documents.scan import Scan
    from cappella.tools.documents.search import Hits

app = App(help="Index and search the folders that `documents` of a config names, or serve them to agents.")

ConfigPath = Annotated[Path, CONFIG]
Name = Annotated[str | None, typer.Argument(help="Name of the documents in the config. (default: its only ones)")]
PROGRESS_FILES = 100


@app.command()
def index(config: ConfigPath, name: Name = None) -> None:
    """Bring the indexes up to date: of all documents, or of these. A call that was stopped goes on where it was.

    Passages get their vectors while `cappella serve` runs, by the embedder that the config names.
    """
    from cappella.tools.documents.scan import Scanner
    from cappella.tools.documents.server import index_path

    with one_line_errors(), _index_errors():
        for each, documents in _named(config, name).items():
            scanner = Scanner(documents.folder, index_path(each, documents), documents.languages, is_verified=True)
            print(_summary(each, scanner.scan(_progress(each))))


@app.command()
def search(
    config: ConfigPath,
    query: Annotated[str, typer.Argument(help="A question, or words to look for.")],
    name: Name = None,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Passages at most.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the passages as JSON.")] = False,
) -> None:
    """Print the passages with these words, the best first, from the index as it is. Exit code 1 if there are none."""
    with one_line_errors(), _index_errors():
        each, documents = _one(config, name)
        if documents.embedder or documents.reranker:
            print("Searched by words alone: the models of these documents run in `cappella serve`.", file=sys.stderr)
        hits = asyncio.run(_search(each, documents, query, limit))
    notes = {each.passage.id: f"has {each.by}, as {hits.passages[each.to].path} does" for each in hits.related}
    passages = [*hits.passages, *(each.passage for each in hits.related)]
    if as_json:
        rows = [{**asdict(hit), "place": hit.place, "related": notes.get(hit.id)} for hit in passages]
        shown = ("path", "place", "title", "heading", "related", "text")
        print(json.dumps([{key: row[key] for key in shown} for row in rows], ensure_ascii=False, indent=2))
    elif hits.passages:
        places = [", ".join(filter(None, (hit.path, hit.place, notes.get(hit.id)))) for hit in passages]
        print("\n\n".join(f"{place}\n{hit.text}" for place, hit in zip(places, passages, strict=True)))
    else:
        print("Nothing found.", file=sys.stderr)
    if not hits.passages:
        raise typer.Exit(1)


@app.command()
def serve(config: ConfigPath, name: Name = None) -> None:
    """Serve the Model Context Protocol on standard input and output: the tools search and read, by words alone.

    An agent starts this command itself. The index follows the folder while it runs.
    """
    with one_line_errors():
        try:
            from cappella.tools.documents.mcp import run_stdio
        except ImportError as error:
            raise ConfigError("this Python", "mcp is not installed", "pip install 'cappella[mcp]'") from error
        asyncio.run(run_stdio(*_one(config, name)))


async def _search(name: str, documents: "Documents", query: str, limit: int) -> "Hits":
    from cappella.tools.documents.search import Searcher
    from cappella.tools.documents.server import index_path

    path = index_path(name, documents)
    if not path.exists():
        raise ConfigError(f"documents.{name}", "has no index yet", "Run `cappella documents index` first")
    searcher = Searcher(path, documents.languages)
    try:
        return await searcher.search(query, limit, documents.related)
    finally:
        await searcher.close()


def _named(config: Path, name: str | None) -> Mapping[str, "Documents"]:
    """Those of this name, or all. Raises ConfigError."""
    from cappella.config.document_folders import load

    found = load(config)
    if not found:
        raise ConfigError(str(config), "it has no documents", "Add documents: {NAME: {folder: FOLDER}}")
    if name is not None and name not in found:
        raise ConfigError(
            str(config), f"there are no documents {name!r}", f"Use one of {', '.join(found)}; a QUERY comes before it"
        )
    return found if name is None else {name: found[name]}


def _one(config: Path, name: str | None) -> tuple[str, "Documents"]:
    found = _named(config, name)
    if len(found) > 1:
        raise ConfigError(str(config), "it has several documents", f"Name one of {', '.join(found)}")
    return next(iter(found.items()))


def _progress(name: str) -> Callable[["Scan"], None]:
    """Tells how far a scan is: on a terminal in one line that changes."""
    console = Console(stderr=True, highlight=False)

    def tell(scan: "Scan") -> None:
        if scan.files % PROGRESS_FILES == 0:
            end = "\r" if console.is_terminal else "\n"
            console.print(f"{name}: {scan.files} files seen, {scan.read} of them new or changed", end=end)

    return tell


def _summary(name: str, scan: "Scan") -> str:
    skipped = [f"{count} {reason}" for reason, count in scan.skipped.most_common()]
    lines = [f"{name}: {scan.files} files, {scan.passages} passages, {scan.seconds:.1f} s"]
    lines[0] += f"; {scan.read} new or changed, {scan.removed} gone"
    if scan.damaged:
        lines.append(f"  the index was damaged, and is made anew; delete {scan.damaged}")
    if scan.kept:
        lines.append(f"  kept: {scan.kept} files that cannot be reached now, as their folder or disk cannot be opened")
    if skipped:
        lines.append(f"  skipped: {', '.join(skipped)}")
    lines += [f"  not read: {path}: {problem}" for path, problem in sorted(scan.problems.items())]
    lines += [f"  read in part: {path}: it has more text than is read of one file" for path in sorted(scan.cut)]
    return "\n".join(lines)


@contextmanager
def _index_errors() -> Iterator[None]:
    """Turns errors of the disk and of SQLite into ours."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise CappellaError(f"The documents cannot be indexed or searched: {error}") from error
