"""`cappella documents` as a program: index, search, and a server for agents."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.command_line import cappella
from support.real_deployment import ROOT
from support.sample_documents import pdf

CONFIG = """\
models:
  ann: {weights: ./ann, max_model_len: 64, kv_cache_bytes: 1MiB}
documents:
  handbook: {folder: papers, index: h.db}
ensembles:
  default: {panel: [ann, ann], judge: ann}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "rooms.pdf").write_bytes(pdf(["Halls.", "Gonil is in room 12."]))
    (tmp_path / "papers" / "broken.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "papers" / "x.png").write_bytes(b"")
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path / "c.yaml"


def test_an_index_is_made_and_searched(config: Path) -> None:
    made = cappella("documents", "index", str(config))
    assert made.returncode == 0, made.stderr
    assert "handbook: 1 files, 2 passages" in made.stdout
    assert "1 of another kind (.png)" in made.stdout
    assert "not read: broken.pdf" in made.stdout
    found = cappella("documents", "search", str(config), "Where is Gonil?", "--json")
    assert [(each["path"], each["place"]) for each in json.loads(found.stdout)] == [("rooms.pdf", "page 2")]
    assert "rooms.pdf, page 2" in cappella("documents", "search", str(config), "Gonil").stdout
    assert cappella("documents", "search", str(config), "quokka").returncode == 1


def test_mistakes_are_one_line(config: Path) -> None:
    unindexed = cappella("documents", "search", str(config), "Gonil")
    assert (unindexed.returncode, "documents index" in unindexed.stderr) == (2, True)
    unknown = cappella("documents", "index", str(config), "nobody")
    assert (unknown.returncode, "Use one of handbook" in unknown.stderr) == (2, True)
    (config.parent / "h.db").write_bytes(b"no database at all, but long enough" * 100)
    broken = cappella("documents", "index", str(config))
    assert (broken.returncode, len(broken.stderr.splitlines())) == (2, 1)
    assert "Delete" not in broken.stderr


async def test_an_agent_searches_once_the_first_scan_is_over_and_reads(config: Path) -> None:
    from mcp import Client, StdioServerParameters

    arguments = ["-m", "cappella", "documents", "serve", str(config)]
    environment = {"PYTHONPATH": str(ROOT / "runtime")}
    command = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    async with Client(command, read_timeout_seconds=60) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"search", "read"}
        found: Any = await client.call_tool("search", {"query": "Gonil"})
        assert [each["place"] for each in found.structured_content["passages"]] == ["page 2"]
        read: Any = await client.call_tool("read", {"path": "rooms.pdf", "place": "page 1"})
        assert "Halls." in read.content[0].text
        wrong = await client.call_tool("read", {"path": "/etc/passwd"})
        assert wrong.is_error


def test_mistakes_elsewhere_in_the_config_do_not_matter(config: Path) -> None:
    text = CONFIG.replace("judge: ann", "judge: nobody").replace("1MiB", "much").replace("h.db", "h.db, embedder: emb")
    emb = "models:\n  emb: {weights: ./emb, task: embed, max_model_len: 64}"
    config.write_text(text.replace("models:", emb) + "server: {prot: 1}\ntools: {wiki: {}}\n")
    made = cappella("documents", "index", str(config))
    assert made.returncode == 0, made.stderr
    assert cappella("documents", "search", str(config), "Gonil").returncode == 0
    config.write_text(config.read_text().replace("task: embed", "task: sing"))
    wrong = cappella("documents", "index", str(config))
    assert (wrong.returncode, f"{config}:2: models.emb" in wrong.stderr) == (2, True)
    config.write_text(text)
    missing = cappella("documents", "index", str(config))
    assert (missing.returncode, "documents.handbook.embedder" in missing.stderr) == (2, True)
