"""What `cappella plan` says of ensembles: runs at once, and estimates of speed."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cappella.config import Config, load
from cappella.placement import advice, estimate, machine, report
from cappella.placement.estimate import Estimate
from support.command_line import cappella

ROOT = Path(__file__).parents[2]
LLAMA, GPT_OSS, GEMMA = "meta-llama/Llama-3.1-8B-Instruct", "openai/gpt-oss-120b", "google/gemma-3-12b-it"


def deployment(tmp_path: Path, ensemble: str = "{panel: [one], judge: one}", **models: str) -> Config:
    """Models by name and hub id, without their weights."""
    lines = [
        f"  {name}: {{weights: {hub_id}, max_model_len: 8192}}" for name, hub_id in (models or {"one": LLAMA}).items()
    ]
    path = tmp_path / "cappella.yaml"
    path.write_text("\n".join(["models:", *lines, f"ensembles: {{default: {ensemble}}}", ""]))
    return load.load(path)


def of(config: Config, gpus: str) -> Estimate:
    return estimate.estimates(config, advice.plan(config, machine.described(gpus)))["default"]


def test_the_speed_of_one_model_is_near_a_published_measurement(tmp_path: Path) -> None:
    # 75 tokens/s with vLLM 0.23: johnmusgrave.com, "vLLM throughput-latency sweep on NVIDIA A100".
    plan = advice.plan(deployment(tmp_path), machine.described("A100-40"))
    assert estimate.tokens_per_s(plan)["one"] == pytest.approx(75, rel=0.1)


def test_a_judge_that_no_run_asks_takes_neither_room_nor_time(tmp_path: Path) -> None:
    models = {"one": LLAMA, "two": LLAMA}
    by_agreement = "{panel: [one, two], strategy: select, select: {by: [agreement]}}"
    unasked, voting = (
        of(deployment(tmp_path, ensemble, **models), "H100")
        for ensemble in (by_agreement, "{panel: [one, two], strategy: vote}")
    )
    asked = of(deployment(tmp_path, "{panel: [one, two], strategy: vote, judge: one}", **models), "H100")
    assert (unasked.judge_s, voting.judge_s, unasked.run_s) == (0, 0, unasked.panel_s)
    assert asked.judge_s
    assert unasked.runs_at_once > asked.runs_at_once


def test_of_experts_only_the_chosen_ones_are_read(tmp_path: Path) -> None:
    speeds = estimate.tokens_per_s(advice.plan(deployment(tmp_path, one=GPT_OSS), machine.described("H100")))
    # 5.1 of 117 billion parameters: about 6 GB of the 66 at a token, 2.3 ms on an H100.
    assert 250 < speeds["one"] < 400


def test_a_split_reads_its_weights_in_parallel(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    alone = estimate.tokens_per_s(advice.plan(config, machine.described("H100")))["one"]
    models = {"one": config.local["one"].model_copy(update={"tensor_parallel_size": 2})}
    halved = estimate.tokens_per_s(
        advice.plan(config.model_copy(update={"models": models}), machine.described("2xH100"))
    )
    assert 1.2 * alone < halved["one"] < 2 * alone


def test_members_on_one_gpu_take_turns_and_on_two_they_do_not(tmp_path: Path) -> None:
    config = deployment(tmp_path, "{panel: [one, two], judge: one}", one=LLAMA, two=LLAMA)
    together, apart = of(config, "H100"), of(config, "2xH100")
    assert together.panel_s
    assert apart.panel_s
    assert together.panel_s == pytest.approx(2 * apart.panel_s, rel=0.01)
    assert together.judge_s == apart.judge_s


def test_samples_of_one_model_share_its_steps(tmp_path: Path) -> None:
    one, three = (
        of(deployment(tmp_path, f"{{panel: [{{model: one, samples: {count}}}], judge: one}}"), "H100")
        for count in (1, 3)
    )
    assert one.panel_s
    assert three.panel_s
    assert three.panel_s < 1.2 * one.panel_s


def test_a_judge_that_only_chooses_writes_nothing(tmp_path: Path) -> None:
    writes, chooses = (
        of(deployment(tmp_path, f"{{panel: [one, one], judge: one, strategy: {how}}}"), "H100")
        for how in ("synthesize", "select")
    )
    assert writes.judge_s
    assert chooses.judge_s
    assert chooses.judge_s < writes.judge_s / 10


def test_runs_at_once_are_those_that_the_tightest_model_has_room_for(tmp_path: Path) -> None:
    config = deployment(tmp_path, "{panel: [one, one], judge: one}")
    plan = advice.plan(config, machine.described("24GiB"))
    found = estimate.estimates(config, plan)["default"]
    # 128 KiB a token in blocks of 16 (175 of them for 2,800 tokens): two members, and a judge that reads 3,600 and writes 1,200.
    run_bytes = (2 * 2800 + 4800) * 128 * 1024
    assert found.runs_at_once == pytest.approx(plan.placed["one"].kv_cache_bytes / run_bytes)
    assert found.limited_by == "one"


def test_max_num_seqs_limits_runs_too(tmp_path: Path) -> None:
    config = deployment(tmp_path, "{panel: [one, one], judge: one}")
    models = {"one": config.local["one"].model_copy(update={"max_num_seqs": 6})}
    assert of(config.model_copy(update={"models": models}), "B200").runs_at_once == 2


def test_a_context_that_is_too_short_for_a_typical_run_is_named(tmp_path: Path) -> None:
    config = deployment(tmp_path, "{panel: [one, one, one], judge: one}")
    models = {"one": config.local["one"].model_copy(update={"max_model_len": 4096})}
    assert of(config.model_copy(update={"models": models}), "H100").short == {"one": 2000 + 3 * 800 + 1200}


@pytest.mark.parametrize("gpus", ["80GiB", "2xH100,24GiB"])
def test_no_speed_is_told_of_a_gpu_without_a_name(tmp_path: Path, gpus: str) -> None:
    config = deployment(tmp_path)
    models = {"one": config.local["one"].model_copy(update={"gpus": (gpus.count(",") * 2,)})}
    config = config.model_copy(update={"models": models})
    plan = advice.plan(config, machine.described(gpus))
    assert estimate.tokens_per_s(plan) == {}
    assert estimate.estimates(config, plan)["default"].run_s is None


def test_no_time_is_told_of_models_that_wake_by_turns(tmp_path: Path) -> None:
    config = deployment(tmp_path, "{panel: [one, two], judge: three}", one=LLAMA, two=LLAMA, three=LLAMA)
    config = config.model_copy(update={"placement": config.placement.model_copy(update={"swap": True})})
    plan = advice.plan(config, machine.described("A6000"))
    assert plan.turns
    assert estimate.estimates(config, plan)["default"].run_s is None


def test_a_plan_says_it_in_words_and_as_json() -> None:
    path = str(ROOT / "model_configs" / "1x80gb.yaml")
    shown = cappella("plan", path, "--gpus", "H100", COLUMNS="150").stdout
    assert "bf16 awq" in shown
    assert "A typical run: a prompt of 2,000 tokens and answers of 800" in shown
    assert "cappella/default: " in shown
    assert " runs at once, limited by " in shown
    assert "  estimate: one run alone takes " in shown
    assert "estimate: tokens/s of each model, while it has its GPUs to itself: ministral " in shown
    unnamed = cappella("plan", path, "--gpus", "79GiB").stdout
    assert "estimate:" not in unnamed
    assert "--gpus H100" in unnamed
    found = json.loads(cappella("plan", path, "--gpus", "H100", "--json").stdout)
    (ensemble,) = found["ensembles"]
    assert ensemble["run_s"] == pytest.approx(ensemble["panel_s"] + ensemble["judge_s"])
    assert found["typical_run"] == {"prompt_tokens": 2000, "answer_tokens": 800}
    assert all(each["estimated_tokens_per_s"] > 50 for each in found["models"])
    assert found["devices"][0]["kind"] == "H100"


def test_a_plan_shows_the_dtype_that_is_chosen_for_a_processor(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    here = replace(machine.own_memory(), slow_in_16_bits=True)
    room = replace(here, devices=[replace(here.devices[0], total_bytes=1 << 40, free_bytes=1 << 40)])
    plan = advice.plan(config, room)
    assert "fp32" in cells(report.picture(plan, config))
    assert '"computes_in": "float32"' in json.dumps(report.as_dict(plan, config))


def cells(shown: object) -> str:
    """What a terminal would show of it."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()
