"""`cappella eval` over real engines: the demo, asked by its own questions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from demo.world import held_out_questions
from support.real_deployment import Deployment

pytestmark = [pytest.mark.vllm, pytest.mark.long]
N = 30


def test_real_demo_wins_by_synthesis_and_says_so(demo: Deployment, tmp_path: Path) -> None:
    rows = [
        {"prompt": each.text, "answer": each.answer, "category": f"{len(each.parts)}"} for each in held_out_questions(N)
    ]
    data, out, page, config = (tmp_path / name for name in ("q.jsonl", "out.json", "out.html", "better.yaml"))
    data.write_text("\n".join(map(json.dumps, rows)))
    files = ("--json", out, "--html", page, "--write-config", config)
    command = (
        "eval",
        demo.config,
        data,
        "--url",
        demo.url,
        "--scorer",
        "exact",
        "--ways",
        "judge,synthesize,select",
        *files,
    )
    subprocess.run([sys.executable, "-m", "cappella", *map(str, command)], check=True, timeout=900)
    report = json.loads(out.read_text())
    lines = {line["name"]: line for line in report["lines"]}
    assert all((line["n"], line["failed"]) == (N, 0) for line in report["lines"])
    assert lines["synthesize"]["accuracy"]["mean"] > lines["oracle"]["accuracy"]["mean"]
    assert lines["judge"]["accuracy"]["mean"] < 0.1
    assert lines["synthesize"]["tokens"] > 3 * lines["alto"]["tokens"]
    assert report["verdict"]["advice"] == "use"
    assert sum(place["chosen"] for place in report["judge"]["choices"][0]["places"]) <= N
    assert "strategy: synthesize" in config.read_text()
    assert page.read_text().startswith("<!doctype html>")
