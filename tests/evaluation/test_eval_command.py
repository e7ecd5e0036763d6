"""`cappella eval` as it is called, over a scripted server: what is asked, kept and reported."""

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappella.config import load
from cappella.evaluation.data import Question
from cappella.evaluation.ensemble import Ensemble, Member
from cappella.evaluation.ways import Way, run_body
from support import command_line
from support.command_line import cappella
from support.fake_engines import FakeEngines, choice_script, eventually, judge_script
from support.scripted_cappella import Json, ScriptedCappella, last
from support.scripted_engine import Script

N = 24


def questions(folder: Path, count: int = N, **more: Any) -> Path:
    path = folder / "questions.jsonl"
    rows = [
        {"prompt": f"What is {i} plus {i}?", "answer": 2 * i, "category": "ab"[i % 2], **more} for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def number_of(body: Json) -> int:
    found = re.search(r"(\d+) plus", last(body))
    assert found
    return int(found[1])


def right_up_to(limit: int, wrong: str = "I say 999") -> Any:
    """A member that is right in the questions below the limit, modulo 12."""
    return lambda body: f"It is {2 * number_of(body)}." if number_of(body) % 12 < limit else wrong


def knowing(body: Json, shown: list[str]) -> int:
    """A judge that picks a right answer if there is one."""
    return next((i for i, text in enumerate(shown) if text == f"It is {2 * number_of(body)}."), 0)


def server(**changes: Any) -> ScriptedCappella:
    says = {
        "ann": right_up_to(3),
        "bob": right_up_to(4, "I say 998"),
        "cat": lambda body: f"It is {2 * number_of(body)}." if number_of(body) % 12 >= 5 else "I say 997",
        "judge": lambda body: "I do not know",
    }
    settings: Json = {"says": says, "panel": ["ann", "bob", "cat"], "choose": knowing}
    settings["writes"] = lambda body, shown: shown[knowing(body, shown)]
    return ScriptedCappella(**{**settings, **changes})


async def evaluated(url: str, data: Path, *options: str | Path) -> "tuple[subprocess.CompletedProcess[str], Json]":
    out = data.parent / "out.json"
    done = await asyncio.to_thread(cappella, "eval", url, data, "--json", out, *options)
    return done, json.loads(out.read_text()) if out.exists() else {}


def by_name(report: Json) -> Json:
    return {line["name"]: line for line in report["lines"]}


async def test_each_way_is_asked_once_over_the_same_answers(tmp_path: Path) -> None:
    scripted = server()
    async with scripted.serving() as url:
        done, report = await evaluated(url, questions(tmp_path), "--ways", "judge,synthesize,select", "--samples", "3")
    assert done.returncode == 0, done.stderr
    lines = by_name(report)
    assert lines["ann"]["accuracy"]["mean"] == 0.25
    assert lines["cat"]["accuracy"]["mean"] == pytest.approx(7 / 12)
    assert lines["select"]["accuracy"]["mean"] == lines["oracle"]["accuracy"]["mean"] == pytest.approx(11 / 12)
    assert lines["judge"]["accuracy"]["mean"] == 0.0
    assert report["best"] == {"cat": N}
    # One call of each member, three samples of the best one, one run of each way.
    assert [len(scripted.asked(name)) for name in ("ann", "bob", "cat", "judge")] == [N, N, 4 * N, N]
    runs = scripted.asked("cappella/default")
    assert len(runs) == 2 * N
    assert all([each["model"] for each in body["fusion"]["answers"]] == ["ann", "bob", "cat"] for body in runs)
    assert len({body["seed"] for body in runs}) == N
    assert len({body["seed"] for body in scripted.asked("cat")}) == 4


async def test_a_run_costs_its_panel_and_its_judge(tmp_path: Path) -> None:
    async with server().serving() as url:
        _, report = await evaluated(url, questions(tmp_path), "--ways", "select")
    select = by_name(report)["select"]
    assert select["tokens"] == 3 * 10 + 32
    # The best member at the same tokens: 62 tokens are six of its answers of ten.
    assert (select["consistency_samples"], select["consistency_tokens"]) == (6, 60)
    assert select["tokens_per_right"] == pytest.approx(62 * 12 / 11)
    assert select["against_best"]["wins"] == 8
    assert report["verdict"]["advice"] == "use"
    assert report["verdict"]["way"] == "select"


async def test_an_ensemble_that_does_not_help_is_told_so(tmp_path: Path) -> None:
    scripted = server(choose=lambda body, shown: 0)
    scripted.says["ann"] = lambda body: f"It is {2 * number_of(body)}."
    async with scripted.serving() as url:
        done, report = await evaluated(url, questions(tmp_path), "--ways", "select")
    assert report["verdict"]["advice"] in ("none", "sample")
    assert "Do not use an ensemble for this" in done.stdout
    assert len(report["verdict"]["sentences"]) == 3


async def test_what_is_kept_is_not_asked_again_and_weighs_once(tmp_path: Path) -> None:
    scripted = server()
    async with scripted.serving() as url:
        data = questions(tmp_path)
        _, first = await evaluated(url, data, "--ways", "select")
        asked = len(scripted.bodies)
        _, second = await evaluated(url, data, "--ways", "select")
        assert len(scripted.bodies) == asked
        assert (second["lines"], second["verdict"]) == (first["lines"], first["verdict"])
        _, third = await evaluated(url, data, "--ways", "select,synthesize")
        assert len(scripted.bodies) == asked + N
        await evaluated(url, data, "--ways", "select", "--fresh")
        assert len(scripted.bodies) == 2 * asked + N
    more_ways, fewer = by_name(third)["select"], by_name(first)["select"]
    # With more ways to win, a win by chance is likelier.
    assert more_ways.pop("p_holm") > fewer.pop("p_holm")
    assert more_ways == fewer


async def test_after_kill_9_the_same_command_goes_on_where_it_was(tmp_path: Path) -> None:
    scripted = server()
    data, out = questions(tmp_path), tmp_path / "out.json"
    async with scripted.serving() as url:
        arguments = ["eval", url, str(data), "--ways", "select", "--json", str(out), "--concurrency", "1"]
        with tempfile.TemporaryFile() as sink:
            started = await asyncio.to_thread(command_line.start, arguments, [sink.fileno()] * 3)
            try:
                assert await eventually(lambda: len(scripted.bodies) > N + 5)
            finally:
                await asyncio.to_thread(started.kill)
        assert started.returncode == -signal.SIGKILL
        assert not out.exists()
        done, report = await evaluated(url, data, "--ways", "select")
    assert done.returncode == 0, done.stderr
    keys = [json.dumps(body, sort_keys=True) for body in scripted.bodies]
    # Only the call in flight at the kill may have been asked twice.
    assert len(keys) - len(set(keys)) <= 1
    assert all(line["n"] == N for line in report["lines"])


async def test_a_member_that_fails_is_counted_and_left_out_of_pairs(tmp_path: Path) -> None:
    scripted = server()
    talks = scripted.says["bob"]
    scripted.says["bob"] = lambda body: (400, "too long") if number_of(body) < 5 else talks(body)
    async with scripted.serving() as url:
        done, report = await evaluated(url, questions(tmp_path), "--ways", "select")
        scripted.bodies.clear()
        await evaluated(url, questions(tmp_path), "--ways", "select", "--json", tmp_path / "out.json")
    # What failed is asked again by the next call, and only that.
    assert {number_of(body) for body in scripted.asked("bob")} == set(range(5))
    assert {body["model"] for body in scripted.bodies} == {"bob"}
    async with scripted.serving() as url:
        await evaluated(url, questions(tmp_path), "--ways", "select", "--fresh")
    bob = by_name(report)["bob"]
    assert (bob["n"], bob["failed"]) == (N - 5, 5)
    assert report["problems"] == {"bob: too long": 5}
    assert "no answer, 5 times: bob: too long" in done.stdout
    runs = scripted.asked("cappella/default")
    assert {len(body["fusion"]["answers"]) for body in runs} == {2, 3}
    assert by_name(report)["select"]["n"] == N


async def test_a_way_with_few_answers_is_not_ranked(tmp_path: Path) -> None:
    """Neither a run nor the judge wins by the few questions that it answered."""
    scripted = server()

    def rarely(body: Json) -> Any:
        return f"It is {2 * number_of(body)}." if number_of(body) < 3 else (400, "too long")

    scripted.says["judge"] = rarely
    scripted.run_refuses = lambda body: "too long" if number_of(body) >= 3 else None
    async with scripted.serving() as url:
        done, report = await evaluated(url, questions(tmp_path), "--ways", "judge,select")
    assert done.returncode == 0, done.stderr
    assert (by_name(report)["select"]["n"], by_name(report)["judge"]["n"]) == (3, 3)
    assert by_name(report)["select"]["accuracy"]["mean"] == 1.0
    assert (report["verdict"]["way"], report["verdict"]["advice"] == "judge") == ("majority", False)
    assert "judge (3 of 24)" in report["verdict"]["sentences"][0]
    assert "select (3 of 24)" in report["verdict"]["sentences"][0]


async def test_shares_are_of_the_questions_that_both_answered(tmp_path: Path) -> None:
    scripted = server()
    # The way does not answer two questions to which the best member knew the answer.
    scripted.run_refuses = lambda body: "too long" if number_of(body) in (10, 11) else None
    async with scripted.serving() as url:
        _, report = await evaluated(url, questions(tmp_path), "--ways", "select")
    first = report["verdict"]["sentences"][0]
    assert "On the 22 of 24 questions that both answered" in first
    assert "right in 90.9% and the best member alone in 54.5%" in first


async def test_a_server_that_restarts_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    scripted = server()
    data = questions(tmp_path, 6)
    async with scripted.serving() as url:
        port = int(url.rpartition(":")[2])
        running = asyncio.create_task(evaluated(url, data, "--ways", "select", "--concurrency", "1"))
        assert await eventually(lambda: len(scripted.bodies) > 8)
    scripted.busy = 2
    async with scripted.serving(port):
        done, report = await running
    assert done.returncode == 0, done.stderr
    assert all((line["n"], line["failed"]) == (6, 0) for line in report["lines"])


async def test_a_member_whose_server_breaks_is_asked_again_the_next_time(tmp_path: Path) -> None:
    scripted = server()
    talks = scripted.says["bob"]
    scripted.says["bob"] = lambda body: (502, "broke")
    async with scripted.serving() as url:
        data = questions(tmp_path, 4)
        _, first = await evaluated(url, data, "--ways", "select")
        scripted.says["bob"] = talks
        _, second = await evaluated(url, data, "--ways", "select")
    assert "bob" not in by_name(first)
    assert by_name(second)["bob"]["n"] == 4


async def test_the_report_shows_place_and_author_of_the_judges_choices(tmp_path: Path) -> None:
    scripted = server(choose=lambda body, shown: 0, judge="ann")
    async with scripted.serving() as url:
        _, report = await evaluated(url, questions(tmp_path), "--ways", "select")
    (chosen,) = report["judge"]["choices"]
    assert [(place["letter"], place["chosen"], place["shown"]) for place in chosen["places"]] == [
        ("A", N, N), ("B", 0, N), ("C", 0, N)
    ]  # fmt: skip
    assert chosen["place_p"] < 0.001
    assert [author["is_judge"] for author in chosen["authors"]] == [True, False, False]
    assert sum(author["chosen"] for author in chosen["authors"]) == N
    (turned,) = report["judge"]["turned"]
    assert turned["some_right_missed"] > 0
    assert (turned["all_right"], turned["none_right_saved"]) == (0, 0)


async def test_leaving_one_out_costs_calls_only_if_it_is_asked_for(tmp_path: Path) -> None:
    scripted = server()
    async with scripted.serving() as url:
        data = questions(tmp_path)
        _, report = await evaluated(url, data, "--ways", "select")
        runs = len(scripted.asked("cappella/default"))
        _, further = await evaluated(url, data, "--ways", "select", "--leave-one-out")
        assert len(scripted.asked("cappella/default")) == runs + 3 * N
    seats = {(seat["member"], seat["way"]): seat for seat in report["seats"]}
    assert set(seats) == {(member, way) for member in ("ann", "bob", "cat") for way in ("majority", "oracle")}
    assert seats["cat", "oracle"]["advice"] == "keep"
    assert seats["ann", "oracle"]["advice"] == "undecided"
    asked = {(seat["member"], seat["way"]): seat for seat in further["seats"]}
    assert asked["cat", "select"]["advice"] == "keep"
    assert asked["cat", "select"]["without"] == pytest.approx(4 / 12)


async def test_the_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    scripted = server()
    scripted.says["bob"] = lambda body: (400, "<script>alert(1)</script>")
    page = tmp_path / "report.html"
    async with scripted.serving() as url:
        done, _ = await evaluated(url, questions(tmp_path), "--ways", "select", "--html", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.count("<svg") == text.count("</svg>") >= 2
    assert not re.search(r"<script|\bsrc=|href=|@import|url\(", text)
    assert "&lt;script&gt;" in text


async def test_a_config_is_written_that_loads(tmp_path: Path) -> None:
    wanted = tmp_path / "better.yaml"
    async with server().serving() as url:
        done, _ = await evaluated(url, questions(tmp_path), "--ways", "select", "--write-config", wanted)
    assert done.returncode == 0, done.stderr
    ensemble = load.load(wanted).ensembles["default"]
    assert ensemble.strategy == "select"
    assert "cat: keep" in wanted.read_text() or "cat: undecided" in wanted.read_text()


async def test_a_proposal_keeps_what_the_config_says_of_models_and_seats(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    model = {"weights": "weights", "max_model_len": 100}
    panel = [{"model": "ann", "temperature": 0.5, "system": "Be brief."}, "bob", "cat"]
    presets = {
        "trusted": {"weights": {"ann": 1.0, "bob": -1.0}},
        "other": {"strategy": "vote", "weights": {"cat": 1.0}},
    }
    config: Json = {
        "models": dict.fromkeys(("ann", "bob", "cat", "judge"), model),
        "ensembles": {"default": {"panel": panel, "judge": "judge", "quorum": 3, "presets": presets}},
    }
    path, wanted = tmp_path / "own.yaml", tmp_path / "out" / "better.yaml"
    path.write_text(yaml.safe_dump(config))
    scripted = server(choose=lambda body, shown: 0)
    scripted.says["ann"] = lambda body: f"It is {2 * number_of(body)}."
    out = tmp_path / "o.json"
    async with scripted.serving() as url:
        options = ("--url", url, "--ways", "select", "--json", out, "--write-config", wanted)
        done = await asyncio.to_thread(cappella, "eval", path, questions(tmp_path), *options)
    assert done.returncode == 0, done.stderr
    (first,) = {json.dumps([body["messages"][0], body["temperature"]]) for body in scripted.asked("ann")[:N]}
    assert json.loads(first) == [{"role": "system", "content": "Be brief."}, 0.5]
    proposed = load.load(wanted)
    assert {seat.model for seat in proposed.ensembles["default"].seats} == {"ann"}
    kept = {name: preset.weights for name, preset in proposed.ensembles["default"].presets.items()}
    assert kept == {"trusted": {"ann": 1.0}, "other": None}
    assert proposed.local["ann"].weights == tmp_path / "weights"


async def test_a_preset_with_a_panel_of_its_own_costs_and_keeps_that_panel(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    small = {"panel": ["bob", {"model": "cat"}], "judge": "ann", "strategy": "synthesize", "quorum": 2}
    config: Json = {
        "models": {name: {"weights": "weights", "max_model_len": 100} for name in ("ann", "bob", "cat", "judge")},
        "ensembles": {
            "default": {"panel": ["ann", "bob", "cat"], "judge": "judge", "presets": {"small": small}},
        },
    }
    path, wanted, out = tmp_path / "own.yaml", tmp_path / "better.yaml", tmp_path / "o.json"
    path.write_text(yaml.safe_dump(config))
    async with server().serving() as url:
        options = ("--url", url, "--ways", "small", "--json", out, "--write-config", wanted)
        done = await asyncio.to_thread(cappella, "eval", path, questions(tmp_path), *options)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert by_name(report)["small"]["tokens"] == 2 * 10 + 32
    assert (report["verdict"]["advice"], report["verdict"]["way"]) == ("use", "small")
    proposed = load.load(wanted).ensembles["default"]
    assert [seat.model for seat in proposed.seats] == ["bob", "cat"]
    assert proposed.judge.model == "ann"


async def test_other_weights_under_the_same_name_are_asked_anew(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_text("one")
    config: Json = {
        "models": {name: {"weights": "weights", "max_model_len": 100} for name in ("ann", "bob", "judge")},
        "ensembles": {"default": {"panel": ["ann", "bob"], "judge": "judge"}},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(config))
    scripted = server(panel=["ann", "bob"])
    data = questions(tmp_path, 3)
    async with scripted.serving() as url:
        for text, times in (("one", 1), ("one", 1), ("two", 2)):
            (weights / "model.safetensors").write_text(text)
            done, _ = await evaluated(str(path), data, "--url", url, "--ways", "select", "--samples", "1")
            assert done.returncode == 0, done.stderr
            assert len(scripted.asked("bob")) >= 3 * times
            assert len([body for body in scripted.asked("ann") if body["seed"] == 0]) == 3 * times


async def test_a_rubric_is_asked_of_the_judge_once_for_each_text(tmp_path: Path) -> None:
    scripted = server()
    scripted.says["judge"] = lambda body: "yes" if "It is" in last(body) else "no"
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"{i} plus?", "rubric": "says it"}) for i in range(4)))
    async with scripted.serving() as url:
        done, report = await evaluated(url, path, "--ways", "select")
    assert done.returncode == 0, done.stderr
    assert by_name(report)["ann"]["accuracy"]["mean"] == 0.75
    texts = [last(body) for body in scripted.asked("judge")]
    assert len(texts) == len(set(texts))


async def test_presets_are_ways_too(tmp_path: Path) -> None:
    scripted = server(presets=["quick"])
    async with scripted.serving() as url:
        done, report = await evaluated(url, questions(tmp_path, 4), "--ways", "quick,preset:quick")
    assert done.returncode == 0, done.stderr
    assert {"quick", "preset:quick"} <= set(by_name(report))
    assert {body["fusion"]["preset"] for body in scripted.asked("cappella/default")} == {"quick"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ways", "guess"), "--ways: 'guess'"),
        (("--scorer", "vibes"), "--scorer: 'vibes'"),
        (("--ensemble", "nobody"), "--ensemble"),
        (("--best", "nobody"), "--best"),
        (("--scorer", "python"), "cannot be scored by python"),
        (("--store", "/proc/none/x"), "/proc/none/x"),
    ],
)
async def test_a_mistake_is_one_line_before_anything_is_asked(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    scripted = server()
    async with scripted.serving() as url:
        done, _ = await evaluated(url, questions(tmp_path, 2), *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert scripted.bodies == []


async def test_a_store_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("not a database, but long enough to be read as one" * 100)
    async with server().serving() as url:
        done, _ = await evaluated(url, questions(tmp_path, 2), "--store", other)
    assert done.returncode == 2
    assert other.read_text().startswith("not a database")


async def test_a_server_that_does_not_take_answers_is_told_at_once(tmp_path: Path) -> None:
    scripted = server(takes_answers=False)
    async with scripted.serving() as url:
        done, _ = await evaluated(url, questions(tmp_path, 3), "--ways", "select")
    assert done.returncode == 1
    assert "fusion.answers" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


async def test_an_ensemble_that_allows_no_overrides_is_told_at_once(tmp_path: Path) -> None:
    scripted = server(takes_answers=False, refusal=("fusion", "overrides_forbidden"))
    async with scripted.serving() as url:
        done, _ = await evaluated(url, questions(tmp_path), "--ways", "select", "--concurrency", "1")
    assert done.returncode == 1
    # The next one may have been on its way.
    assert len(scripted.asked("cappella/default")) <= 2


async def test_the_gateway_lists_and_answers_what_is_needed(
    gateway: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    for name in ("ann", "bob"):
        fake_engines.let(name, Script(("It is", " 0.")))
    choice = choice_script(Hello=0.9)
    fake_engines.let("judge", judge_script(Script(("It is 2.",)), choice=choice))
    ways = "judge,select,synthesize,vote,debate"
    done, report = await evaluated(
        gateway, questions(tmp_path, 4), "--ways", ways, "--samples", "2", "--concurrency", "1"
    )
    assert done.returncode == 0, done.stderr
    lines = by_name(report)
    assert [lines[name]["accuracy"]["mean"] for name in ("ann", "bob", "cat", "judge")] == [0.25] * 2 + [0.0, 0.25]
    assert [lines[name]["accuracy"]["mean"] for name in ("select", "synthesize", "vote")] == [0.0, 0.25, 0.25]
    assert report["problems"] == {}
    # Each member once by its own name, and once more in each debate; the best one twice more for its samples.
    asked = sorted(len(fake_engines.servers[name].bodies) for name in ("ann", "bob", "cat"))
    assert asked == [8, 8, 16]
    (chosen,) = report["judge"]["choices"]
    assert {author["member"]: author["chosen"] for author in chosen["authors"]} == {"ann": 0, "bob": 0, "cat": 4}
    assert lines["cat"]["unread"] == 4
    assert lines["ann"]["tokens"] == 12
    assert report["verdict"]["advice"] != "use"


async def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done, _ = await evaluated("http://127.0.0.1:9", questions(tmp_path, 2))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


async def test_a_judge_that_knows_it_all_needs_no_panel(tmp_path: Path) -> None:
    scripted = server()
    scripted.says["judge"] = lambda body: f"It is {2 * number_of(body)}."
    wanted = tmp_path / "alone.yaml"
    async with scripted.serving() as url:
        _, report = await evaluated(url, questions(tmp_path), "--write-config", wanted)
    assert report["verdict"]["advice"] == "judge"
    assert [seat.model for seat in load.load(wanted).ensembles["default"].seats] == ["judge"]


async def test_each_question_is_in_the_json_with_who_was_right(tmp_path: Path) -> None:
    async with server().serving() as url:
        _, report = await evaluated(url, questions(tmp_path, 6), "--ways", "select")
    assert [each["id"] for each in report["questions"]] == [str(i + 1) for i in range(6)]
    assert report["questions"][4]["right"] == {
        "ann": False, "bob": False, "cat": False, "best member": False, "self-consistency": False, "majority": False,
        "select": False, "oracle": False,
    }  # fmt: skip


async def test_a_category_with_a_way_of_its_own_gets_a_preset(tmp_path: Path) -> None:
    says = {
        name: (
            lambda body, rest=rest: (
                f"It is {2 * number_of(body)}." if number_of(body) % 3 == rest else f"I say 99{rest}"
            )
        )
        for rest, name in enumerate(("ann", "bob", "cat"))
    }
    scripted = server(
        says=says,
        choose=lambda body, shown: knowing(body, shown) if number_of(body) % 2 else 0,
        writes=lambda body, shown: "I say 990" if number_of(body) % 2 else f"It is {2 * number_of(body)}.",
    )
    wanted = tmp_path / "better.yaml"
    async with scripted.serving() as url:
        data = questions(tmp_path, 60)
        done, report = await evaluated(url, data, "--ways", "synthesize,select", "--write-config", wanted)
    assert done.returncode == 0, done.stderr
    select = by_name(report)["select"]["categories"]
    assert select["b"] == {"n": 30, "accuracy": 1.0}
    ensemble = load.load(wanted).ensembles["default"]
    proposed = {name: preset.strategy for name, preset in ensemble.presets.items()}
    assert proposed.items() <= {"for-a": "synthesize", "for-b": "select"}.items()
    assert ensemble.strategy not in proposed.values()
    assert len(proposed) == 1


async def test_a_pipe_that_is_closed_loses_no_file(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    async with server().serving() as url:
        arguments = ["eval", url, str(questions(tmp_path, 4)), "--ways", "select", "--html", str(page)]
        closed, pipe = os.pipe()
        os.close(closed)
        with tempfile.TemporaryFile() as sink, os.fdopen(pipe, "wb") as out:
            files = [sink.fileno(), out.fileno(), sink.fileno()]
            started = await asyncio.to_thread(command_line.start, arguments, files)
            try:
                await asyncio.to_thread(started.wait, 120)
            finally:
                await asyncio.to_thread(started.kill)
    assert page.exists()


async def test_a_proposal_that_cannot_be_written_does_not_hide_the_figures(tmp_path: Path) -> None:
    async with server().serving() as url:
        nowhere = tmp_path / "questions.jsonl" / "c.yaml"
        done, report = await evaluated(url, questions(tmp_path, 4), "--ways", "select", "--write-config", nowhere)
    assert done.returncode == 2
    assert str(nowhere) in done.stderr
    assert report["lines"]
    assert "oracle" in done.stdout


def test_answers_are_brought_along_by_seat_and_nobody_is_asked_anew() -> None:
    members = [
        Member(name, model) for name, model in (("ann", "ann"), ("ann#2", "ann"), ("bob~1", "bob"), ("bob~2", "bob"))
    ]
    ensemble = Ensemble("default", members, "judge", {}, {"small": ["bob"]}, {}, "")
    question = Question("q", [{"role": "user", "content": "?"}])

    def fusion(way: Way, *names: str) -> Any:
        return run_body(ensemble, way, question, [(ensemble.named(name), name) for name in names])["fusion"]

    whole = fusion(Way("select", {"strategy": "select"}), "ann", "ann#2", "bob~1", "bob~2")
    assert whole["analysis_models"] == ["ann", "ann", "bob"]
    assert [each["model"] for each in whole["answers"]] == ["ann", "ann#2", "bob", "bob"]
    without = fusion(Way("x", {"strategy": "select"}, without="ann#2"), "ann", "ann#2", "bob~1")
    assert without["analysis_models"] == ["ann", "bob"]
    second = fusion(Way("select", {"strategy": "select"}), "ann#2", "bob~1")
    assert (second["analysis_models"], second["answers"][0]["model"]) == ([], "ann#2")
    preset = fusion(Way("small", {"preset": "small"}), "ann", "bob~1", "bob~2")
    assert preset == {"preset": "small", "answers": [{"model": "bob", "content": name} for name in ("bob~1", "bob~2")]}
