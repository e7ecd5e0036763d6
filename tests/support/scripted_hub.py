"""A Hugging Face hub with one model, for the real huggingface_hub: the parts of its HTTP API that downloads use."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "a" * 40
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "generation_config.json": b"{}",
    "LICENSE": b"Do as you like.",
    "model.safetensors": bytes(range(256)) * 4096,
    "consolidated.safetensors": b"the same once more",
    "pytorch_model.bin": b"a pickle",
    "modeling_ann.py": b"code",
    "README.md": b"praise",
    "onnx/model.json": b"another form",
}


class Hub(ThreadingHTTPServer):
    """Answers as the hub does for maker/ann, whose files are what it says of them, or what it serves instead."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Reply)
        self.files = files
        self.served: dict[str, bytes] = dict(files)
        self.asked: list[tuple[str, str]] = []
        self.gated = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def info(self) -> dict[str, Any]:
        siblings = [_sibling(name, content) for name, content in self.files.items()]
        head = {"_id": "1", "id": "maker/ann", "sha": COMMIT, "gated": "manual" if self.gated else False}
        return {**head, "private": False, "tags": [], "cardData": {"license": "mit"}, "siblings": siblings}

    @property
    def environment(self) -> dict[str, str]:
        """For a command that may reach it."""
        return {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": self.url, "HF_TOKEN": "", "NO_PROXY": "*", "no_proxy": "*"}

    def tree(self) -> list[dict[str, Any]]:
        return [_entry(name, content) for name, content in self.files.items()]

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    large = {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}
    return {"rfilename": name, "size": len(content), "blobId": blob, **(large if name.endswith("tensors") else {})}


def _entry(name: str, content: bytes) -> dict[str, Any]:
    """A file as the tree lists it."""
    found = _sibling(name, content)
    large = {"lfs": {"oid": found["lfs"]["sha256"], "size": len(content), "pointerSize": 134}} if "lfs" in found else {}
    return {"type": "file", "path": name, "size": len(content), "oid": found["blobId"], **large}


class Reply(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        if re.fullmatch(rf"/api/models/maker/ann(/revision/({COMMIT}|main|refs%2Fpr%2F1))?(\?blobs=.*)?", self.path):
            self._send(200, json.dumps(self.server.info()).encode())
        elif self.path.startswith(f"/api/models/maker/ann/tree/{COMMIT}"):
            self._send(200, json.dumps(self.server.tree()).encode())
        elif self.server.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif self.path.startswith(f"/maker/ann/resolve/{COMMIT}/"):
            self._send_file(self.server.served[self.path.split("/")[-1]])
        else:
            is_ours = self.path.startswith("/api/models/maker/ann/")
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound" if is_ours else "RepoNotFound"})

    do_HEAD = do_GET

    def _send_file(self, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(asked[1]) if asked else 0
        sibling = _sibling(self.path.split("/")[-1], content)
        fields = {"ETag": f'"{sibling.get("lfs", {}).get("sha256") or sibling["blobId"]}"', "X-Repo-Commit": COMMIT}
        fields |= {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if asked else {}
        self._send(206 if asked else 200, content[begin:], fields)

    def _send(self, status: int, body: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(fields or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def running(files: Mapping[str, bytes] = FILES) -> Iterator[Hub]:
    with Hub(files) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fill_cache(hub: Hub, home: Path, *options: str) -> None:
    """Make a Hugging Face cache in this `HF_HOME`, with huggingface_hub's own download."""
    code = f"from huggingface_hub import snapshot_download; snapshot_download('maker/ann', {', '.join(options)})"
    environment = {**os.environ, **hub.environment, "HF_HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    hub.asked.clear()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
