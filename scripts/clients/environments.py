"""The environment of each client: a virtual environment or a folder of npm's, made once under a cache folder."""

import json
import re
import subprocess
import sys
from pathlib import Path

from clients.table import Client

INSTALL_TIMEOUT_S = 900


def made(client: Client, cache: Path) -> Path:
    """The environment's folder, with the pinned packages installed. Raises CalledProcessError or TimeoutExpired."""
    folder = cache / re.sub(r"\W+", "-", client.name).strip("-").lower()
    mark = folder / ".installed"
    wanted = "\n".join(client.packages)
    if mark.exists() and mark.read_text() == wanted:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if client.is_node:
        (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
        _run(["npm", "install", "--no-audit", "--no-fund", "--silent", *client.packages], folder)
    else:
        _run([sys.executable, "-m", "venv", "."], folder)
        _run(["bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *client.packages], folder)
    mark.write_text(wanted)
    return folder


def program(client: Client, folder: Path, name: str) -> str:
    """The path of a program of the client's."""
    return str(folder / ("node_modules/.bin" if client.is_node else "bin") / name)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_TIMEOUT_S, capture_output=True, text=True)
