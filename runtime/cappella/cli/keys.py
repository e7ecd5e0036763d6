"""`cappella keys`: create, list and revoke keys in the file that a config names."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cappella.auth.keys import SCOPES, KeyStore, Scope
from cappella.cli.errors import App, one_line_errors
from cappella.errors import ConfigError

app = App(
    help="Create, list and revoke API keys in the file that server.keys names.",
)

MAX_PIPED_CHARACTERS = 10_000

KeysPath = Annotated[Path, typer.Argument(help="The file that server.keys of the config names.")]


@app.command()
def create(
    keys: KeysPath,
    name: Annotated[str, typer.Argument(help="Owner of the key, for lists and logs.")],
    models: Annotated[
        str | None, typer.Option(help="Models and ensembles that it may call (comma-separated). (default: all)")
    ] = None,
    documents: Annotated[
        str | None, typer.Option(help="Documents that its requests may search (comma-separated). (default: all)")
    ] = None,
    scope: Annotated[str, typer.Option(help="run, admin (comma-separated).")] = "run",
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Prompt and answer tokens of all inner calls.")
    ] = None,
) -> None:
    """Print a new key, which is not shown again. Creates the file if there is none."""
    with one_line_errors():
        allowed = None if models is None else _names("models", models)
        searched = None if documents is None else _names("documents", documents)
        limits = (requests_per_minute, tokens_per_minute)
        print(KeyStore(keys).create(name, _scopes(scope), allowed, *limits, searched))


def _names(what: str, text: str) -> list[str]:
    """Raises ConfigError for a blank name: an unset variable in a script must not make a key for everything."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        hint = f"Name {what}, or leave --{what} out to allow all"
        raise ConfigError(f"--{what}", f"{text!r} has a blank name", hint)
    return names


def _existing(keys: Path) -> KeyStore:
    """Raises ConfigError if there is no such file."""
    if not keys.exists():
        raise ConfigError(str(keys), "there is no such file", "Name the file that server.keys of the config names")
    return KeyStore(keys)


def _scopes(text: str) -> list[Scope]:
    out: list[Scope] = []
    for each in text.split(","):
        found = next((known for known in SCOPES if known == each.strip()), None)
        if found is None:
            raise ConfigError("--scope", f"{each!r} is not a scope", f"Use {', '.join(SCOPES)}")
        out.append(found)
    return out


@app.command("list")
def list_keys(keys: KeysPath) -> None:
    """List every key with its limits and usage. The keys themselves are not stored."""
    with one_line_errors():
        store = _existing(keys)
        used, known = store.usage(), store.all()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "id",
        "name",
        "scopes",
        "models",
        "documents",
        "per minute",
        "requests",
        "tokens",
        "created",
        "revoked",
    ):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("id", "created", "revoked"))
    for key in known:
        limits = f"{key.requests_per_minute or '-'} requests, {key.tokens_per_minute or '-'} tokens"
        count = used.get(key.id)
        counts = (str(count.requests), str(count.prompt_tokens + count.completion_tokens)) if count else ("0", "0")
        models = "all" if key.models is None else " ".join(key.models)
        documents = "all" if key.documents is None else " ".join(key.documents)
        row = (key.id, key.name, " ".join(key.scopes), models, documents, limits, *counts)
        table.add_row(*row, key.created_at[:10], (key.revoked_at or "")[:10])
    # What reads a pipe wants whole rows.
    width = None if sys.stdout.isatty() else MAX_PIPED_CHARACTERS
    Console(highlight=False, width=width).print(table)


@app.command()
def revoke(
    keys: KeysPath, key_id: Annotated[str, typer.Argument(help="Id of the key, from `cappella keys list`.")]
) -> None:
    """Revoke a key, at once and in a running server too."""
    with one_line_errors():
        if not _existing(keys).revoke(key_id):
            raise ConfigError(str(keys), f"there is no valid key {key_id}", "See `cappella keys list`")
    print(f"Revoked {key_id}.")
