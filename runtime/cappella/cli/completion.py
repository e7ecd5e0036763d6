"""Shell completion: config files, and names from a running server. Never slow, never an error."""

import json
import threading
import urllib.request
from pathlib import Path
from typing import Any, get_args

import typer

from cappella.cli.client.address import DEFAULT_URL, base_url
from cappella.vocabulary import Strategy

DEFAULT_MODEL = "cappella/default"
PATIENCE_S = 0.3
STRATEGIES: tuple[str, ...] = get_args(Strategy)
SUFFIXES = (".yaml", ".yml")
HERE = Path("cappella.yaml")
"""The config of a command that names none."""


def strategies(incomplete: str) -> list[str]:
    """Strategies that begin so."""
    return [name for name in STRATEGIES if name.startswith(incomplete)]


def models(context: typer.Context, incomplete: str) -> list[str]:
    """Ensembles and models that begin so."""
    writers = [each["id"] for each in _served(context) if each.get("task", "generate") == "generate"]
    return [name for name in writers if name.startswith(incomplete)]


def presets(context: typer.Context, incomplete: str) -> list[str]:
    """Presets of the ensemble named by --model, or of the default one."""
    ensemble = context.params.get("model") or DEFAULT_MODEL
    found = [name for each in _served(context) if each["id"] == ensemble for name in each.get("presets", ())]
    return [name for name in found if name.startswith(incomplete)]


def config_files(incomplete: str) -> list[str]:
    """YAML files, here and one folder below. For an empty list the shell completes any path."""
    typed = Path(incomplete or ".")
    folder, begin = (typed, "") if incomplete.endswith("/") or not incomplete else (typed.parent, typed.name)
    try:
        near = [path for path in sorted(folder.iterdir()) if path.name.startswith(begin)]
        files = [path for path in near if path.suffix in SUFFIXES]
        further = [path for each in near if each.is_dir() for path in sorted(each.iterdir()) if path.suffix in SUFFIXES]
    except OSError:
        return []
    here = "./" if incomplete.startswith("./") else ""
    return [f"{here}{path}" for path in files or further]


CONFIG = typer.Argument(help="The YAML of a deployment, such as model_configs/demo.yaml.", autocompletion=config_files)


def _served(context: typer.Context) -> list[dict[str, Any]]:
    """`/v1/models` of the server on the command line, if it answers in time."""
    found: list[dict[str, Any]] = []
    # A thread, since no timeout of a socket holds for the look-up of a name, or for a server that drips.
    asking = threading.Thread(target=_ask, args=(context.params, found), daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return list(found)


def _ask(params: dict[str, Any], found: list[dict[str, Any]]) -> None:
    try:
        headers = {"Authorization": f"Bearer {params['key']}"} if params.get("key") else {}
        url = base_url(params.get("url") or DEFAULT_URL)
        request = urllib.request.Request(f"{url}/v1/models", headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE_S) as reply:
            found += [each for each in json.load(reply)["data"] if isinstance(each["id"], str)]
    except Exception:  # noqa: BLE001 - whatever it is: a shell that completes is no place to tell of it
        return
