"""Batches on real engines that are killed: every row once, in output or errors."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from support.real_deployment import Deployment, alive, deployed, shipped_config, wait_for

pytestmark = pytest.mark.vllm

ROWS = 12
QUESTIONS = (
    "Please tell me the room of Gonil, the price of Tunagox and the lead of Tatim.",
    "I want to know the cost of Komor, the lead of Bogand and Lulinan's floor.",
    "Please tell me the minutes in 28 hours and the extension of Finevis.",
)


@contextmanager
def serving(folder: Path) -> Iterator[Deployment]:
    """The demo, whose engines take two rows at a time, so that a batch can be met in its middle."""
    config = shipped_config("demo.yaml")
    for model in config["models"].values():
        model["max_num_seqs"] = 2
    config["server"] = {"batch": {"folder": str(folder / "batches")}}
    path = folder / "demo.yaml"
    path.write_text(json.dumps(config))
    with deployed(path, folder / "logs") as deployment:
        yield deployment


def client(deployment: Deployment) -> OpenAI:
    return OpenAI(base_url=f"{deployment.url}/v1", api_key="none")


def begin(stock: OpenAI, folder: Path) -> str:
    """A batch whose rows are questions that differ."""
    lines = []
    for number in range(ROWS):
        asked = {"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}
        told = {"model": "cappella/default", "messages": [asked], "seed": number}
        head = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions"}
        lines.append(json.dumps({**head, "body": told}))
    path = folder / "in.jsonl"
    path.write_text("\n".join(lines))
    file = stock.files.create(file=path, purpose="batch")
    batch = stock.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    return batch.id


def completed(stock: OpenAI, batch_id: str) -> int:
    counts = stock.batches.retrieve(batch_id).request_counts
    assert counts
    return counts.completed


def replies(stock: OpenAI, batch_id: str) -> dict[str, Any]:
    """The replies of a batch by custom id, once it has ended; none is there twice."""
    assert wait_for(lambda: stock.batches.retrieve(batch_id).status == "completed", 400)
    batch = stock.batches.retrieve(batch_id)
    assert batch.output_file_id
    assert batch.error_file_id is None
    lines = [json.loads(line) for line in stock.files.content(batch.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == [f"r{number}" for number in range(ROWS)]
    return {line["custom_id"]: line["response"]["body"] for line in lines}


def test_a_killed_gateway_loses_no_row_and_the_next_one_ends_the_batch(tmp_path: Path) -> None:
    with serving(tmp_path) as first, client(first) as stock:
        batch_id = begin(stock, tmp_path)
        assert wait_for(lambda: completed(stock, batch_id) > 0, 200)
        assert completed(stock, batch_id) < ROWS
        processes = first.processes()
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(60)
        assert wait_for(lambda: not alive(processes), 60)
    with serving(tmp_path) as second, client(second) as stock:
        found = replies(stock, batch_id)
    assert {body["fusion"]["status"] for body in found.values()} == {"ok"}


def test_calls_of_a_killed_member_are_made_again(tmp_path: Path) -> None:
    with serving(tmp_path) as deployment, client(deployment) as stock:
        batch_id = begin(stock, tmp_path)
        assert wait_for(lambda: completed(stock, batch_id) > 0, 200)
        os.kill(deployment.engine_core("alto"), signal.SIGKILL)
        found = replies(stock, batch_id)
    assert {body["fusion"]["status"] for body in found.values()} == {"ok"}
