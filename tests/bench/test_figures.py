"""From replies to figures, and from figures to a table, JSON and a picture."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cappella.bench import report
from cappella.bench.figures import Figures, figures, spread
from cappella.bench.load import Batch
from cappella.bench.systems import Reply


def traced(total_s: float, **timings: Any) -> Reply:
    told = {
        "panel_ms": 600.0,
        "judge_first_token_ms": 100.0,
        "first_token_ms": 700.0,
        "total_ms": 990.0,
        "floor_ms": 800.0,
        "overhead_ms": 4.0,
        "early_prefill_tokens": 128,
        "late_prefill_tokens": 64,
        **timings,
    }
    details = [{"completion_tokens": 9}, {"completion_tokens": 20, "tokens_per_step": 2.5}]
    return Reply(0.7, total_s, 20, {"fusion": {"timings": told}, "usage": {"fusion_details": details}})


def one_batch(*replies: Reply, errors: tuple[str, ...] = (), seconds: float = 2.0) -> list[Batch]:
    return [Batch(seconds, list(replies), list(errors))]


def measured(*replies: Reply, **batch: Any) -> Figures:
    found = figures("cappella", "1 at once", 3, 20, one_batch(*replies, **batch))
    assert found
    return found


def test_percentiles_are_values_that_occurred() -> None:
    assert spread([float(number) for number in range(1, 101)]).p95 == 96
    assert spread([3.0]).p99 == 3.0


def test_overhead_is_all_that_the_client_waited_while_no_engine_worked() -> None:
    found = measured(traced(1.0))
    assert found.overhead_s
    # 10 ms outside of the run, 4 ms inside.
    assert found.overhead_s.p50 == pytest.approx(0.014)


def test_the_ratio_to_the_floor_counts_what_the_client_waited() -> None:
    assert measured(traced(1.0)).of_floor == pytest.approx(1.25)


def test_throughput_is_the_median_over_the_batches_and_counts_final_answers_alone() -> None:
    batches = [batch for seconds in (1.0, 2.0, 10.0) for batch in one_batch(traced(1.0), traced(1.0), seconds=seconds)]
    found = figures("cappella", "2 at once", 3, 20, batches)
    assert found
    assert (found.runs_per_s, found.tokens_per_s) == (1.0, 20.0)


def test_failed_runs_are_counted_and_their_reasons_told_once() -> None:
    found = measured(traced(1.0), errors=("502 gone", "502 gone"))
    assert (found.runs, found.failed, found.errors) == (1, 2, ["502 gone"])


def test_of_nothing_come_no_figures() -> None:
    assert figures("cappella", "1 at once", 3, 20, one_batch(errors=("gone",))) is None


def test_what_only_a_trace_can_tell_is_left_out_where_there_is_none(tmp_path: Path) -> None:
    plain = figures("one model", "1 at once", 3, None, one_batch(Reply(0.1, 0.5, 20)))
    assert plain
    assert (plain.of_floor, plain.overhead_s, plain.stages) == (None, None, None)
    console = Console(width=240, file=(tmp_path / "table").open("w"))
    console.print(report.table([plain, measured(traced(1.0))]))
    console.file.close()
    table = (tmp_path / "table").read_text()
    assert "one model" in table
    assert "2.50" in table


def test_a_report_is_a_folder_with_every_figure_and_a_picture(tmp_path: Path) -> None:
    data, picture = report.write([measured(traced(1.0)), measured(traced(2.0))], tmp_path / "out")
    told = json.loads(data.read_text())
    assert told["figures"][0]["of_floor"] == pytest.approx(1.25)
    assert told["figures"][0]["stages"] == {"panel": 0.6, "judge reads": 0.1, "judge writes": pytest.approx(0.29)}
    assert {"command", "cores", "at"} <= set(told)
    assert "<svg" in picture.read_text()
