"""Precedence of request, preset, ensemble and default, and requests that are refused."""

from typing import Any

import pytest

from cappella.config import Ensemble, Model, RemoteModel
from cappella.config.options import MAX_ANSWERS, Gate, Options, Settings
from cappella.config.overrides import Overrides
from cappella.config.seat_tools import SeatTools
from cappella.config.weighing import Agreement, Selection
from cappella.ensemble.prompts import labels
from cappella.ensemble.settings import resolve
from cappella.errors import RequestError, UnknownModel
from cappella.types import OutputFormat, Prompt, Sampling

PLAIN = Model.model_validate({"weights": "w", "max_model_len": 100, "kv_cache_bytes": "1MiB"})
MODELS = dict.fromkeys(("ann", "bob", "cat"), PLAIN)
PROMPT = Prompt([{"role": "user", "content": "Hi"}])


def ensemble(**fields: Any) -> Ensemble:
    panel = [{"model": "ann", "temperature": 0.2, "top_p": 0.9}, {"model": "bob"}]
    return Ensemble.model_validate({"panel": panel, "judge": {"model": "cat", "temperature": 0.1}, **fields})


def resolved(overrides: Overrides = Overrides(), sampling: Sampling = Sampling(), **fields: Any) -> Settings:
    return resolve("default", ensemble(**fields), MODELS, overrides, PROMPT, sampling)


def test_without_overrides_the_ensemble_decides() -> None:
    settings = resolved(quorum=1, round_timeout_s=7, deadline_s=9, analysis="off")
    assert [seat.sampling for seat in settings.panel] == [Sampling(temperature=0.2, top_p=0.9), Sampling()]
    assert (settings.judge, settings.judge_sampling) == ("cat", Sampling(temperature=0.1))
    assert (settings.quorum, settings.round_timeout_s, settings.deadline_s, settings.analysis) == (1, 7, 9, "off")


def test_a_request_overrides_only_what_it_sets() -> None:
    overrides = Overrides(options=Options(quorum=1, round_timeout_s=3), panel_sampling=Sampling(temperature=1.5))
    settings = resolved(overrides, Sampling(max_completion_tokens=5))
    assert settings.panel[0].sampling == Sampling(temperature=1.5, top_p=0.9)
    assert settings.judge_sampling == Sampling(temperature=0.1, max_completion_tokens=5)
    assert (settings.quorum, settings.round_timeout_s, settings.deadline_s) == (1, 3, 300)


@pytest.mark.parametrize("temperature", [0.0, 0])
def test_a_temperature_of_zero_is_an_override_too(temperature: float) -> None:
    settings = resolved(Overrides(panel_sampling=Sampling(temperature=temperature)), Sampling(temperature=temperature))
    assert [seat.sampling.temperature for seat in settings.panel] == [0, 0]
    assert settings.judge_sampling.temperature == 0


def test_a_chosen_panel_keeps_the_sampling_that_its_models_have_in_the_ensemble() -> None:
    settings = resolved(Overrides(panel=("ann", "cat", "ann")))
    assert [seat.name for seat in settings.panel] == ["ann", "cat", "ann#2"]
    assert [seat.sampling.temperature for seat in settings.panel] == [0.2, None, 0.2]


def test_a_seed_gives_each_seat_its_own_and_repeats_the_run() -> None:
    panel = Overrides(panel=("ann", "ann", "bob"))
    first, second = resolved(panel, Sampling(seed=0)), resolved(panel, Sampling(seed=0))
    assert [seat.sampling.seed for seat in first.panel] == [0, 1, 2]
    assert first == second
    assert first.seed == first.judge_sampling.seed == 0


def test_without_a_seed_every_run_has_a_new_one_and_members_have_none() -> None:
    runs = [resolved() for _ in range(4)]
    assert len({run.seed for run in runs}) > 1
    assert {seat.sampling.seed for run in runs for seat in run.panel} == {None}


@pytest.mark.parametrize(("panel", "quorum"), [(("ann",), 1), (("ann", "bob", "cat"), 2)])
def test_the_default_quorum_is_two_or_the_whole_of_a_smaller_panel(panel: tuple[str, ...], quorum: int) -> None:
    assert resolved(Overrides(panel=panel)).quorum == quorum


@pytest.mark.parametrize(
    ("overrides", "param", "code"),
    [
        (Overrides(options=Options(quorum=3)), "fusion.min_successful_responses", "invalid_value"),
        (Overrides(panel=("ann", "cappella/x")), "fusion.analysis_models", "nested_ensemble"),
        (Overrides(judge="cappella/default"), "fusion.model", "nested_ensemble"),
        (Overrides(panel=("dan",)), "fusion.analysis_models", "model_not_found"),
        (Overrides(judge="dan"), "fusion.model", "model_not_found"),
        (Overrides(judge=""), "fusion.model", "model_not_found"),
    ],
)
def test_an_invalid_override_is_refused_with_its_field(overrides: Overrides, param: str, code: str) -> None:
    with pytest.raises(RequestError) as raised:
        resolved(overrides)
    assert (raised.value.param, raised.value.code) == (param, code)


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownModel, match=r"Known: ann, bob, cat\."):
        resolved(Overrides(panel=("dan",)))


@pytest.mark.parametrize(
    "overrides",
    [Overrides(judge="ann"), Overrides(options=Options(quorum=1)), Overrides(panel_sampling=Sampling(temperature=0.0))],
)
def test_every_override_is_refused_where_the_operator_forbids_them(overrides: Overrides) -> None:
    with pytest.raises(RequestError) as raised:
        resolved(overrides, allow_overrides=False)
    assert raised.value.code == "overrides_forbidden"
    assert resolved(allow_overrides=False).judge == "cat"


def of(prompt: Prompt, overrides: Overrides = Overrides(), models: Any = MODELS, **fields: Any) -> Settings:
    return resolve("default", ensemble(**fields), models, overrides, prompt, Sampling())


def test_request_then_preset_then_ensemble_then_default() -> None:
    presets = {"quick": {"strategy": "select", "analysis": "off", "panel": ["bob"], "judge": "ann", "quorum": 1}}
    quick = resolved(Overrides(preset="quick"), presets=presets, analysis="alongside", debias=True)
    assert (quick.preset, quick.strategy, quick.analysis, quick.debias) == ("quick", "select", "off", True)
    assert ([seat.name for seat in quick.panel], quick.judge, quick.quorum) == (["bob"], "ann", 1)
    overrides = Overrides(preset="quick", options=Options(strategy="vote"), panel=("ann", "cat"))
    both = resolved(overrides, presets=presets)
    assert (both.strategy, both.analysis, [seat.name for seat in both.panel]) == ("vote", "off", ["ann", "cat"])
    assert (resolved().strategy, resolved().layers, resolved().early_exit) == ("synthesize", 1, "off")


def test_a_preset_is_the_operators_own_and_no_override() -> None:
    presets = {"quick": {"strategy": "select"}}
    assert resolved(Overrides(preset="quick"), presets=presets, allow_overrides=False).strategy == "select"


def test_samples_shift_the_seeds_of_later_seats() -> None:
    settings = resolved(
        Overrides(options=Options(samples=3), panel_sampling=Sampling(temperature=1)), Sampling(seed=10)
    )
    assert [(seat.samples, seat.sampling.seed) for seat in settings.panel] == [(3, 10), (3, 13)]
    assert settings.answer_names == ["ann~1", "ann~2", "ann~3", "bob~1", "bob~2", "bob~3"]


def test_one_member_may_have_its_own_sampling() -> None:
    overrides = Overrides(model_sampling=(("bob", Sampling(temperature=1.9)),))
    assert [seat.sampling.temperature for seat in resolved(overrides).panel] == [0.2, 1.9]


@pytest.mark.parametrize(
    ("overrides", "param"),
    [
        (Overrides(preset="quick"), "fusion.preset"),
        (Overrides(options=Options(gate="rules")), "fusion.gate"),
        (Overrides(options=Options(samples=2), panel_sampling=Sampling(temperature=0)), "fusion.samples"),
        (Overrides(model_sampling=(("cat", Sampling()),)), "fusion.analysis_overrides"),
    ],
)
def test_options_that_the_ensemble_lacks_are_refused_with_their_field(overrides: Overrides, param: str) -> None:
    with pytest.raises(RequestError) as raised:
        resolved(overrides)
    assert raised.value.param == param


def test_a_gate_may_be_turned_off_or_changed_by_a_request() -> None:
    gate = {"mode": "rules", "model": "ann", "max_words": 2}
    assert resolved(gate=gate).gate == Gate("rules", "ann", 2)
    assert resolved(Overrides(options=Options(gate="off")), gate=gate).gate is None
    assert resolved(Overrides(options=Options(gate="judge")), gate=gate).gate == Gate("judge", "ann", 2)


def test_a_model_that_is_called_with_the_panel_as_its_tool_is_judge_and_gate() -> None:
    settings = resolved(Overrides(outer="bob"))
    assert (settings.judge, settings.gate) == ("bob", Gate("judge", "bob", 4, decider="bob"))
    other = resolved(Overrides(outer="bob", judge="ann"), gate={"mode": "rules", "model": "ann", "max_words": 2})
    assert (other.judge, other.gate) == ("ann", Gate("judge", "bob", 2, decider="bob"))
    assert resolved(Overrides(outer="bob", options=Options(gate="off"))).gate is None
    assert resolved(Overrides(outer="bob", panel_required=True)).gate is None


def test_a_called_model_that_cannot_choose_a_word_always_asks_the_panel() -> None:
    far = RemoteModel(url="http://10.0.0.7:8000/v1", max_model_len=100, json_schema=True)
    settings = resolve("default", ensemble(), {**MODELS, "far": far}, Overrides(outer="far"), PROMPT, Sampling())
    assert (settings.judge, settings.gate) == ("far", None)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


def test_inputs_that_the_models_do_not_support_are_refused() -> None:
    tools = Prompt(PROMPT.messages, tools=[{"type": "function", "function": {"name": "f"}}])
    image = Prompt([{"role": "user", "content": [IMAGE]}])
    cases = [
        (tools, "tools"),
        (image, "messages"),
    ]
    for prompt, param in cases:
        with pytest.raises(RequestError) as raised:
            of(prompt)
        assert raised.value.param == param
    able = PLAIN.model_copy(update={"tool_parser": "hermes", "reasoning_parser": "qwen3", "images": True})
    for prompt, _ in cases:
        assert of(prompt, models=dict.fromkeys(MODELS, able), tools=True).judge == "cat"
    with pytest.raises(RequestError, match="cat does not accept tools"):
        of(tools, models={**dict.fromkeys(MODELS, able), "cat": PLAIN}, tools=True)


@pytest.mark.parametrize(
    "output_format",
    [
        OutputFormat(
            "response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "robot"}}}
        ),
        OutputFormat("structured_outputs", {"regex": "("}),
        OutputFormat("structured_outputs", {"json": "{not json"}),
        OutputFormat("structured_outputs", {"json": "[]"}),
    ],
)
def test_a_format_that_cannot_be_checked_is_refused(output_format: OutputFormat) -> None:
    with pytest.raises(RequestError) as raised:
        of(Prompt(PROMPT.messages, output_format=output_format))
    assert raised.value.param == output_format.field


@pytest.mark.parametrize(
    ("options", "says", "param"),
    [
        (Options(samples=14), "28 answers; at most 26", "fusion.samples"),
        (Options(samples=13, layers=3), "26 answers in each of 3 layers; a run may have 64", "fusion.layers"),
    ],
)
def test_more_answers_than_letters_or_than_a_run_may_have_are_refused(options: Options, says: str, param: str) -> None:
    warm = Sampling(temperature=0.5)
    with pytest.raises(RequestError, match=says) as refused:
        resolved(Overrides(options=options, panel_sampling=warm))
    assert (refused.value.code, refused.value.param) == ("too_large", param)
    assert len(resolved(Overrides(options=Options(samples=13, layers=2), panel_sampling=warm)).answer_names) == 26


def test_there_is_a_letter_for_each_answer_that_a_round_may_have() -> None:
    assert len(set(labels(MAX_ANSWERS))) == MAX_ANSWERS


@pytest.mark.parametrize("fields", [{"samples": 14}, {"presets": {"all": {"samples": 14}}}])
def test_a_config_with_more_answers_than_letters_is_an_error(fields: Any) -> None:
    with pytest.raises(ValueError, match="gives 28 answers is too large: at most 26"):
        ensemble(**fields)


BY_AGREEMENT: dict[str, Any] = {"strategy": "select", "select": {"by": ["agreement"]}}


@pytest.mark.parametrize(
    ("overrides", "param"),
    [
        (Overrides(judge="bob"), "fusion.model"),
        (Overrides(options=Options(criteria="Be brief.")), "fusion.criteria"),
        (Overrides(judge="bob", preset="quick"), "fusion.model"),
    ],
)
def test_words_for_a_judge_whom_no_run_asks_are_refused(overrides: Overrides, param: str) -> None:
    with pytest.raises(RequestError, match=r"none is asked: select counts agreement alone") as raised:
        resolved(overrides, presets={"quick": {"layers": 2}}, **BY_AGREEMENT)
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (Options(strategy="vote"), {}),
        (Options(early_exit="judge"), {}),
        (Options(select=Selection(by=("judge", "agreement"))), {}),
        (Options(agreement=Agreement(by="judge")), {}),
        (Options(), {"gate": {"mode": "judge", "model": "ann"}}),
        (Options(), {"tools": True, "tools_panel": "judge"}),
    ],
)
def test_words_for_a_judge_whom_some_turn_asks_are_taken(options: Options, fields: Any) -> None:
    options = options.model_copy(update={"criteria": "Be brief."})
    overrides = Overrides(judge="bob", options=options, panel_required="gate" in fields)
    settings = resolved(overrides, **BY_AGREEMENT, **fields)
    assert (settings.judge, settings.criteria) == ("bob", "Be brief.")


@pytest.mark.parametrize("fields", [BY_AGREEMENT, {"strategy": "select"}, {"strategy": "vote"}])
def test_logprobs_are_refused_where_a_member_that_reports_none_may_answer(fields: Any) -> None:
    far = RemoteModel(url="http://127.0.0.1:9/v1", max_model_len=100, logprobs=False)
    models = {**MODELS, "bob": far}
    asked = Prompt(PROMPT.messages, logprobs=1)
    with pytest.raises(RequestError, match=r"may be that of bob, and its server does not report logprobs") as raised:
        of(asked, models=models, **fields)
    assert raised.value.param == "logprobs"
    assert of(PROMPT, models=models, **fields)
    assert of(asked, models=models, strategy="synthesize")
    assert of(asked, Overrides(panel=("ann",)), models, **fields)


def test_a_judge_that_only_scores_need_report_no_logprobs() -> None:
    scorer = PLAIN.model_copy(update={"task": "reward"})
    assert of(Prompt(PROMPT.messages, logprobs=1), models={**MODELS, "cat": scorer}, strategy="select").judge == "cat"


TOOLS: dict[str, Any] = {
    "panel": [{"model": "ann", "tools": ["calc"], "max_tool_calls": 2}, {"model": "bob"}],
    "judge": {
        "model": "cat",
        "tools": ["handbook"],
        "tool_choice": "required",
        "then": [{"model": "bob", "tools": ["calc"]}],
    },
}


def test_tools_stay_with_the_models_that_have_a_configured_seat() -> None:
    panel = resolved(Overrides(panel=("ann", "cat", "ann")), **TOOLS).panel
    assert [(seat.name, seat.tools.servers, seat.tools.max_calls) for seat in panel] == [
        ("ann", ("calc",), 2),
        ("cat", (), 8),
        ("ann#2", ("calc",), 2),
    ]


def test_a_judge_that_a_request_names_has_tools_only_if_it_is_the_configured_one() -> None:
    assert resolved(**TOOLS).judge_tools == SeatTools(("handbook",), choice="required")
    assert resolved(Overrides(judge="cat"), **TOOLS).judge_tools.servers == ("handbook",)
    assert resolved(Overrides(judge="bob"), **TOOLS).judge_tools == SeatTools()
    assert resolved(**TOOLS).with_next_judge.judge_tools == SeatTools(("calc",))
