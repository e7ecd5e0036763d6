"""Runs the official Node client against a server."""

import json
import shutil
import subprocess
from typing import Any

from support.real_deployment import ROOT

HAS_NODE = shutil.which("npm") is not None


def run_node(script: str, url: str) -> dict[str, Any]:
    """The JSON output of `tests/node/<script>`; installs the client on first use."""
    folder = ROOT / ".cache" / "node"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", script):
        shutil.copy(ROOT / "tests" / "node" / name, folder)
    if not (folder / "node_modules" / "openai").exists():
        install = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(install, cwd=folder, check=True, timeout=180)
    done = subprocess.run(["node", script, url], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen
