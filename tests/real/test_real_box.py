"""Where nothing may be written but what scripts/deploy names, by somebody who is not root and has no name; and its end."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

from support.real_deployment import ROOT, Deployment, alive, deployed, shipped_config, stop, wait_for
from support.scripted_hub import files_of, fill_cache, running

pytestmark = [pytest.mark.vllm, pytest.mark.long]

BOX = [sys.executable, str(ROOT / "tests" / "support" / "read_only_box.py")]
BOXES = subprocess.run([*BOX, "--", "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
needs_a_box = pytest.mark.skipif(not BOXES, reason="this kernel gives no user namespace")
QUESTION = "Please tell me the room of Gonil and the price of Tunagox."


@dataclass(frozen=True)
class Box:
    """One engine where only these folders may be written; not boxed where the kernel gives no user namespace."""

    deployment: Deployment
    temporary: Path


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box")
    model = shipped_config("demo.yaml")["models"]["soprano"]
    weights = Path(model["weights"])
    # Named as its users name a model: the plan chooses its context, and the cache has its files.
    model = {key: value for key, value in model.items() if key != "max_model_len"} | {"weights": "maker/ann"}
    ensemble = {"panel": ["soprano", "soprano"], "judge": "soprano", "analysis": "off"}
    config = folder / "solo.yaml"
    # Time enough to end what is under way, on a busy machine too.
    server = {"drain_s": 300}
    config.write_text(json.dumps({"models": {"soprano": model}, "ensembles": {"default": ensemble}, "server": server}))
    # The path of this one leaves room for the names of sockets, as /tmp does.
    with TemporaryDirectory(prefix="box-") as temporary:
        folders = {"logs": folder / "logs", "cache": folder / "cache", "tmp": Path(temporary)}
        for each in folders.values():
            each.mkdir(exist_ok=True)
        with running(files_of(weights)) as hub:
            fill_cache(hub, folders["cache"] / ".cache" / "huggingface")
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "runtime"),
            "HOME": str(folders["cache"]),
            "TMPDIR": temporary,
        }
        before = [*BOX, *map(str, folders.values()), "--"] if BOXES else []
        with deployed(config, folders["logs"], before, environment) as deployment:
            yield Box(deployment, folders["tmp"])


def test_real_weights_are_found_by_their_hub_id_with_the_context_that_the_plan_chose(box: Box) -> None:
    found = {each["id"]: each["max_model_len"] for each in box.deployment.get("/v1/models")["data"]}
    assert found["soprano"] == 1024


async def ask(box: Box, model: str, **more: Any) -> tuple[int, Any]:
    """Status, and the JSON of a reply; of a stream its text."""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], **more}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{box.deployment.url}/v1/chat/completions", json=body) as reply,
    ):
        text = await reply.text()
        return reply.status, json.loads(text) if reply.content_type == "application/json" else text


@needs_a_box
async def test_a_run_needs_no_other_folder_and_no_capability(box: Box) -> None:
    status = Path(f"/proc/{box.deployment.process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    _, reply = await ask(box, "cappella/default")
    assert reply["fusion"]["status"] == "ok"


async def test_sigterm_lets_what_is_under_way_end_and_ends_everything_with_exit_code_0(box: Box) -> None:
    processes = box.deployment.processes()
    long = {"ignore_eos": True, "max_tokens": 400}
    calls = [asyncio.create_task(ask(box, "soprano", **long, stream=bool(number % 2))) for number in range(6)]
    assert await asyncio.to_thread(wait_for, lambda: box.deployment.running() == 6, 60)
    assert await asyncio.to_thread(stop, box.deployment) == 0
    replies = await asyncio.gather(*calls)
    assert [status for status, _ in replies] == [200] * 6
    assert [reply["usage"]["completion_tokens"] for _, reply in replies[::2]] == [400] * 3
    assert all('"finish_reason":"length"' in text and text.endswith("data: [DONE]\n\n") for _, text in replies[1::2])
    assert wait_for(lambda: not alive(processes), 20), alive(processes)


def test_nothing_is_left_in_the_temporary_folder(box: Box) -> None:
    """What is compiled stays; of sockets and temporary files nothing does."""
    if box.deployment.process.poll() is None:
        stop(box.deployment)
    assert list(box.temporary.iterdir()) == []
