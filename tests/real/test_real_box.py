"""The demo where nothing may be written but what scripts/deploy names, by somebody who is not root and has no name."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen

import pytest

from support.real_deployment import ROOT, deployed, stop

pytestmark = pytest.mark.vllm

BOX = [sys.executable, str(ROOT / "tests" / "boxed.py")]
needs_a_box = pytest.mark.skipif(
    subprocess.run([*BOX, "--", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0,
    reason="this kernel gives no user namespace",
)
QUESTION = "Please tell me the room of Gonil and the price of Tunagox."


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets, as /tmp does."""
    with TemporaryDirectory(prefix="box-") as folder:
        yield Path(folder)


@needs_a_box
def test_the_demo_writes_nowhere_but_where_the_unit_and_the_container_let_it(tmp_path: Path, short: Path) -> None:
    folders = {"logs": tmp_path / "logs", "cache": tmp_path / "cache", "tmp": short}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "runtime"),
        "HOME": str(folders["cache"]),
        "TMPDIR": str(folders["tmp"]),
    }
    before = [*BOX, *map(str, folders.values()), "--"]
    with deployed(ROOT / "model_configs" / "demo.yaml", folders["logs"], before, environment) as box:
        status = Path(f"/proc/{box.process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "CapEff:\t0000000000000000" in status
        body = {"model": "cappella/default", "messages": [{"role": "user", "content": QUESTION}]}
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        with urlopen(Request(f"{box.url}/v1/chat/completions", data, kind), timeout=60) as reply:
            assert json.load(reply)["fusion"]["status"] == "ok"
        assert stop(box) == 0
    # What is compiled stays; of sockets and temporary files nothing does.
    assert list(folders["tmp"].iterdir()) == []
