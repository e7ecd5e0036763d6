"""The config of the server that is attacked: the demo, with all that keeps something, hostile tools, and documents of two kinds."""

import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from campaign import hostile_model

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "model_configs"
TOOL_SERVER = ROOT / "tests" / "support" / "mcp_server.py"
CLIENT_TIMEOUT_S = 8.0
TOOL_TIMEOUT_S = 3
MAX_TOOL_CALLS = 6
MAX_KEPT_BYTES = 32 << 20
"""Of one key, in the file of runs and responses."""
OPEN, SECRET = "handbook", "board"
"""The documents that the attacker's key may search, and those that it may not."""
SECRET_WORDS = "MARKED-TEXT-OF-THE-BOARD"
SECRET_FILE = "launch.md"
TOOLS_ENSEMBLE = "cappella/tools"
SCORERS = ("librarian", "critic")


def write_config(folder: Path, asker_url: str, more_models: Collection[str]) -> Path:
    """The config's file; `more_models` are those of demo-pooling.yaml that are served, too."""
    config = _read("demo.yaml")
    others = _read("demo-pooling.yaml")["models"]
    config["models"] |= {name: others[name] for name in more_models}
    config["models"]["asker"] = {"url": asker_url, "max_model_len": hostile_model.CONTEXT_TOKENS, "tools": True}
    config["ensembles"]["tools"] = {
        "panel": [{"model": "asker", "tools": ["small", OPEN, SECRET], "max_tool_calls": MAX_TOOL_CALLS}, "soprano"],
        "judge": {"model": "asker", "tools": ["lying", SECRET], "max_tool_calls": MAX_TOOL_CALLS},
        "quorum": 1,
        "analysis": "off",
        "early_prefill": False,
        "deadline_s": 60,
    }
    config["tools"] = {"small": _tool_server(""), "lying": _tool_server("lying")}
    config["documents"] = {name: _documents(folder, name) for name in (OPEN, SECRET)}
    config["server"] = {
        "port": 0,
        "client_timeout_s": CLIENT_TIMEOUT_S,
        "keys": str(folder / "keys.sqlite"),
        "audit": {"file": str(folder / "audit.jsonl")},
        "runs": {"file": str(folder / "runs.sqlite"), "content": True, "max_bytes_per_key": MAX_KEPT_BYTES},
        "batch": {"folder": str(folder / "batches")},
        "log_dir": str(folder / "logs"),
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def hostile_model_served() -> Iterator[str]:
    """The URL of its API; it ends with the context."""
    command = [sys.executable, hostile_model.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def _read(name: str) -> Any:
    config = yaml.safe_load((CONFIGS / name).read_text())
    for model in config["models"].values():
        model["weights"] = str(CONFIGS / model["weights"])
    return config


def _tool_server(way: str) -> dict[str, Any]:
    return {"command": [sys.executable, str(TOOL_SERVER), way], "timeout_s": TOOL_TIMEOUT_S, "memory_bytes": "256MiB"}


def _documents(folder: Path, name: str) -> dict[str, Any]:
    documents = folder / name
    documents.mkdir()
    words = SECRET_WORDS if name == SECRET else "a public place"
    (documents / SECRET_FILE).write_text(f"# The launch\n\nThe launch of the new ship takes place in {words}.\n")
    return {"folder": str(documents), "index": str(folder / f"{name}.sqlite")}
