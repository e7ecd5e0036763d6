"""Weights come from the hub at one commit, only what is needed, on from where it stopped; over a scripted hub."""

import hashlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from support.command_line import cappella
from support.small_bundle import CARD, deployment

pytest.importorskip("huggingface_hub")

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
NEEDED = {
    "config.json",
    "tokenizer.json",
    "chat_template.jinja",
    "generation_config.json",
    "LICENSE",
    "model.safetensors",
}


class Hub(ThreadingHTTPServer):
    """Answers as the hub does for maker/ann, whose files are what it says of them, or what it serves instead."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Reply)
        self.served: dict[str, bytes] = dict(FILES)
        self.asked: list[tuple[str, str]] = []
        self.gated = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def info(self) -> dict[str, Any]:
        siblings = [_sibling(name, content) for name, content in FILES.items()]
        head = {"_id": "1", "id": "maker/ann", "sha": COMMIT, "gated": "manual" if self.gated else False}
        return {**head, "private": False, "tags": [], "cardData": {"license": "mit"}, "siblings": siblings}

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    large = {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}
    return {"rfilename": name, "size": len(content), "blobId": blob, **(large if name.endswith("tensors") else {})}


class Reply(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        if re.fullmatch(rf"/api/models/maker/ann(/revision/{COMMIT})?\?blobs=.*", self.path):
            self._send(200, json.dumps(self.server.info()).encode())
        elif self.server.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif self.path.startswith(f"/maker/ann/resolve/{COMMIT}/"):
            self._send_file(self.server.served[self.path.split("/")[-1]])
        else:
            is_ours = self.path.startswith("/api/models/maker/ann/")
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound" if is_ours else "RepoNotFound"})

    def _send_file(self, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(asked[1]) if asked else 0
        fields = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if asked else {}
        self._send(206 if asked else 200, content[begin:], fields)

    def _send(self, status: int, body: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(fields or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def config(folder: Path, **card: Any) -> Path:
    path = deployment(folder, card="card.yaml", weights="pulled")
    (folder / "card.yaml").write_text(json.dumps({**CARD, **card}))
    return path


def pull(hub: Hub, path: Path, *options: str) -> tuple[int, str, str]:
    home = str(path.parent / "hf")
    hub_only = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": home, "HF_TOKEN": ""}
    done = cappella("pull", path, *options, NO_PROXY="*", no_proxy="*", **hub_only)
    return done.returncode, done.stdout, done.stderr


def test_only_what_an_engine_reads_comes_and_its_licence_is_shown(hub: Hub, tmp_path: Path) -> None:
    path = config(tmp_path)
    code, said, error = pull(hub, path)
    assert code == 0, error
    assert "licence: mit (the card says apache-2.0); not gated; licence text: LICENSE" in said
    weights = tmp_path / "pulled"
    assert {each.name for each in weights.iterdir()} == {*NEEDED, ".pulled.json"}
    assert all((weights / name).read_bytes() == FILES[name] for name in NEEDED)
    hub.asked.clear()
    assert "is complete" in pull(hub, path)[1]
    assert hub.asked == []


def test_a_pull_that_broke_off_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    path, partial = config(tmp_path), tmp_path / "pulled" / "model.safetensors.partial"
    partial.parent.mkdir()
    hub.gated = True
    code, _, error = pull(hub, path)
    assert (code, len(error.strip().splitlines())) == (2, 1), error
    assert "is gated" in error
    hub.gated = False
    partial.write_bytes(FILES["model.safetensors"][:300_000])
    assert pull(hub, path)[0] == 0
    assert (f"/maker/ann/resolve/{COMMIT}/model.safetensors", "bytes=300000-") in hub.asked
    assert (tmp_path / "pulled" / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_has_another_hash_than_the_hub_says_is_not_kept(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.served[name] = bytes(len(FILES[name]))
    code, _, error = pull(hub, config(tmp_path))
    assert code == 2
    assert f"{name}: its hash" in error
    assert not list((tmp_path / "pulled").glob(f"{name}*"))
    hub.served = dict(FILES)
    assert pull(hub, tmp_path / "c.yaml")[0] == 0


def test_a_card_without_a_revision_is_refused_unless_one_says_so(hub: Hub, tmp_path: Path) -> None:
    path = config(tmp_path, revision=None)
    code, _, error = pull(hub, path)
    assert code == 2
    assert "card.yaml: revision: pins no revision" in error
    assert hub.asked == []
    code, said, error = pull(hub, path, "--unpinned")
    assert code == 0, error
    assert f"write revision: {COMMIT} into" in said


def test_what_the_hub_has_not_is_one_line_and_exit_code_2(hub: Hub, tmp_path: Path) -> None:
    for card, says in [({"revision": "b" * 40}, "has no revision b"), ({"hub_id": "maker/bob"}, "is not on the hub")]:
        code, _, error = pull(hub, config(tmp_path, **card))
        assert code == 2
        assert says in error
        assert len(error.strip().splitlines()) == 1
    hub.shutdown()
    hub.server_close()
    code, _, error = pull(hub, config(tmp_path))
    assert code == 2
    assert "cannot be downloaded" in error
    assert len(error.strip().splitlines()) == 1


def test_weights_of_another_commit_or_of_ones_own_are_left_alone(hub: Hub, tmp_path: Path) -> None:
    path, weights = config(tmp_path), tmp_path / "pulled"
    weights.mkdir()
    (weights / "config.json").write_text("mine")
    code, said, _ = pull(hub, path)
    assert (code, (weights / "config.json").read_text()) == (0, "mine")
    assert "was not made by `pull`" in said
    (weights / "config.json").unlink()
    assert pull(hub, path)[0] == 0
    code, _, error = pull(hub, config(tmp_path, revision="c" * 40))
    assert code == 2
    assert f"maker/ann at {COMMIT}, but the card names maker/ann at {'c' * 40}" in error
