"""Resolves the settings of one run: the request goes over the preset, the ensemble and the defaults."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cappella.config import Ensemble, Judge, Preset, seats
from cappella.config.ensembles import GateConfig
from cappella.config.judge_seat import JudgeSeat
from cappella.config.limits import Limits
from cappella.config.options import MAX_ANSWERS, Gate, Seat, Settings
from cappella.config.overrides import Overrides
from cappella.config.seat_tools import SeatTools
from cappella.config.weighing import most_samples
from cappella.ensemble import able, given_answers
from cappella.ensemble.able import Models
from cappella.ensemble.messages import ends_in_results
from cappella.errors import RequestError, UnknownModel
from cappella.types import Prompt, Sampling
from cappella.vocabulary import TASKS, GateMode


def resolve(
    name: str,
    ensemble: Ensemble,
    models: Models,
    overrides: Overrides,
    prompt: Prompt,
    judge_sampling: Sampling,
    limits: Limits = Limits(),
) -> Settings:
    """The settings of one run. Raises RequestError for what the config does not allow or its models do not support."""
    _require_allowed(name, ensemble, overrides)
    _require_open_conversation(prompt)
    preset = _preset(name, ensemble, overrides.preset)
    judge = (preset.judge if isinstance(preset, Preset) else None) or ensemble.judge
    options = {"criteria": judge.criteria, **ensemble.given(), **preset.given(), **overrides.options.given()}
    panel = _panel(ensemble, preset, models, overrides, judge_sampling.seed)
    panel, given = given_answers.seated(panel, overrides.answers)
    able.require_writers([seat.model for seat in panel], models)
    judge_model = (overrides.outer or judge.model) if overrides.judge is None else overrides.judge
    _require_models([judge_model], models, "fusion.model")
    answers = len({*(name for seat in panel for name in seat.answer_names), *(each.name for each in given)})
    _require_modest_number(answers, options.get("layers", 1), limits)
    able.require_capabilities(name, ensemble, models, [*(seat.model for seat in panel), judge_model], prompt)
    quorum = _quorum(overrides.options.quorum, options.get("quorum"), answers)
    mode = options.get("gate") or (preset.gate if isinstance(preset, Preset) else None)
    gate = _gate(name, ensemble, mode, overrides, models)
    if _judge_goes_on(options, overrides, prompt) and models[judge_model].capabilities.writes:
        gate = Gate("tools", judge_model)
    # A gate's model would answer without the given answers.
    options |= {"quorum": quorum, "gate": None if given else gate}
    settings = Settings(
        ensemble=name,
        preset=overrides.preset,
        panel=panel,
        answers=given,
        seed=secrets.randbits(32) if judge_sampling.seed is None else judge_sampling.seed,
        **_of_judge(judge, judge_model, judge_sampling),
        next_judges=_next_judges(judge, overrides, judge_sampling),
        panel_watched=prompt.watched,
        **options,
    )
    _require_complete(settings, models)
    able.require_asked_judge(settings, overrides, mode or (ensemble.gate.mode if ensemble.gate else None))
    _require_able(settings, models, prompt)
    return _with_able_judges(settings, models, prompt)


def _of_judge(judge: Judge, model: str, sampling: Sampling) -> dict[str, Any]:
    """The settings of the first judge, which is `model`."""
    return {
        "judge": model,
        "judge_sampling": sampling.over(judge.sampling),
        "analysis_max_tokens": judge.analysis_max_tokens,
        "judge_texts": judge.prompts.texts,
        "own_knowledge": judge.own_knowledge,
        "judge_tools": judge.seat_tools if model == judge.model else SeatTools(),
    }


def _require_complete(settings: Settings, models: Models) -> None:
    """Raises RequestError for options that need another one."""
    _require_members(settings)
    _require_pattern(settings)
    _require_reward(settings, models)
    _require_embedder(settings, models)


def _require_able(settings: Settings, models: Models, prompt: Prompt) -> None:
    """Raises RequestError for what the models cannot do."""
    able.require_logprobs(models, settings, prompt)
    able.require_image_support(models, settings, prompt)
    if problem := able.judge_problem(models, settings, prompt):
        raise problem


def _with_able_judges(settings: Settings, models: Models, prompt: Prompt) -> Settings:
    """The same without those of the next judges that could not judge this run."""
    left = [seat for seat in settings.next_judges if not able.judge_problem(models, settings.judged_by(seat), prompt)]
    return settings.model_copy(update={"next_judges": tuple(left)})


def _next_judges(judge: Judge, overrides: Overrides, sampling: Sampling) -> tuple[JudgeSeat, ...]:
    """The judges that stand in for the configured one; none for one that the request names."""
    if overrides.judge is not None or overrides.outer is not None:
        return ()
    criteria = overrides.options.given().get("criteria")
    return tuple(
        JudgeSeat(
            each.model,
            sampling.over(each.sampling),
            criteria or each.criteria,
            each.analysis_max_tokens,
            each.prompts.texts,
            each.own_knowledge,
            each.seat_tools,
        )
        for each in judge.then
    )


def _require_allowed(name: str, ensemble: Ensemble, overrides: Overrides) -> None:
    """Raises RequestError for overrides that the ensemble forbids."""
    is_other_judge = overrides.outer not in (None, ensemble.judge.model)
    if not ensemble.allow_overrides and (overrides.beyond_preset or is_other_judge):
        message = f"cappella/{name} allows no overrides: its config sets allow_overrides: false."
        raise RequestError(message, "fusion", "overrides_forbidden")


def _require_modest_number(answers: int, layers: int, limits: Limits) -> None:
    """Raises RequestError for more answers in a round than letters, or in all rounds than the limit."""
    if answers > MAX_ANSWERS:
        message = f"The panel would give {answers} answers; at most {MAX_ANSWERS} can be told apart by a letter."
        raise RequestError(message, "fusion.samples", "too_large")
    if answers * layers > limits.answers:
        message = f"The panel would give {answers} answers in each of {layers} layers"
        raise RequestError(
            f"{message}; a run may have {limits.answers} (server.limits.answers).", "fusion.layers", "too_large"
        )


def _require_open_conversation(prompt: Prompt) -> None:
    """Raises RequestError for a conversation that leaves nothing to answer."""
    if not prompt.messages:
        raise RequestError("The request has no messages.")
    if prompt.messages[-1]["role"] == "assistant":
        message = (
            "messages: the last turn is the assistant's, and an ensemble does not continue it: end with a user's turn."
        )
        raise RequestError(message, "messages")


def _preset(name: str, ensemble: Ensemble, requested: str | None) -> Preset | Ensemble:
    if requested is None:
        return ensemble
    if requested not in ensemble.presets:
        known = f"It has {', '.join(ensemble.presets)}." if ensemble.presets else "It has none."
        message = f"cappella/{name} has no preset {requested!r}. {known}"
        raise RequestError(message, "fusion.preset", "preset_not_found")
    return ensemble.presets[requested]


def _panel(
    ensemble: Ensemble, preset: Preset | Ensemble, models: Models, overrides: Overrides, seed: int | None
) -> tuple[Seat, ...]:
    panel_seats = ensemble.seats_of(preset)
    samples = most_samples(overrides.options.given().get("samples"))
    if overrides.panel is not None:
        _require_models(overrides.panel, models, "fusion.analysis_models")
        configured = {seat.model: seat for seat in reversed(panel_seats)}
        requested = [configured.get(model, Seat(model, model)) for model in overrides.panel]
        panel_seats = seats(requested)
    by_model = dict(overrides.model_sampling)
    _require_seated(by_model, panel_seats)
    panel, answers = [], 0
    for seat in panel_seats:
        count = samples or seat.samples
        # With one seed, two seats or samples of a model would give the same answer. vLLM itself adds i to the seed of
        # sample i, so the next seat's seeds begin after those.
        seeded = Sampling(seed=None if seed is None else seed + answers)
        sampling = seeded.over(by_model.get(seat.model, Sampling())).over(overrides.panel_sampling).over(seat.sampling)
        if count > 1 and sampling.temperature == 0:
            message = f"{count} samples of {seat.name} at temperature 0 would be identical: set fusion.temperature."
            raise RequestError(message, "fusion.samples")
        panel.append(replace(seat, sampling=sampling, samples=count))
        answers += count
    return tuple(panel)


def _require_seated(by_model: Mapping[str, Sampling], panel: Sequence[Seat]) -> None:
    for model in by_model:
        if model not in {seat.model for seat in panel}:
            raise RequestError(f"{model} is not on the panel.", "fusion.analysis_overrides")


def _judge_goes_on(options: Mapping[str, Any], overrides: Overrides, prompt: Prompt) -> bool:
    """Whether the judge answers alone, since the request brings results of tools (`tools_panel: judge`)."""
    goes_on = prompt.brings_results or ends_in_results(prompt.messages)
    return options.get("tools_panel") == "judge" and not overrides.panel_required and goes_on


def _require_members(settings: Settings) -> None:
    """Raises RequestError for an empty panel and an option with which members read the answers."""
    if settings.asks_again and not settings.panel:
        message = "Members read the answers with it, and analysis_models is empty: name some, or leave it out."
        raise RequestError(f"fusion.{settings.asks_again}: {message}", f"fusion.{settings.asks_again}")


def _require_pattern(settings: Settings) -> None:
    if settings.extract == "regex" and settings.extract_pattern is None:
        raise RequestError("extract: regex needs a pattern: set fusion.extract_pattern.", "fusion.extract_pattern")


def _require_reward(settings: Settings, models: Models) -> None:
    """Raises RequestError for a reward model that is none, or is missing though it should count."""
    reward = settings.select.reward
    if reward is not None:
        _require_models([reward], models, "fusion.select")
    if (reward is None and "reward" in settings.select.by) or (
        reward is not None and not TASKS[models[reward].capabilities.task].scores_answers
    ):
        message = "select: reward counts the scores of a model with task: reward or rerank: name one."
        raise RequestError(f"fusion.{message}", "fusion.select")


def _require_embedder(settings: Settings, models: Models) -> None:
    """Raises RequestError for a model of `agreement` that embeds nothing, or is missing though it should count."""
    agreement = settings.agreement
    if agreement.model is not None:
        _require_models([agreement.model], models, "fusion.agreement")
    embeds = agreement.model is not None and models[agreement.model].capabilities.task == "embed"
    if (agreement.by == "embedding" or agreement.model is not None) and not embeds:
        message = "agreement: embedding compares answers as a model with task: embed embeds them: name one."
        raise RequestError(f"fusion.{message}", "fusion.agreement")


def _quorum(requested: int | None, quorum: int | None, answers: int) -> int:
    if requested is not None and requested > answers:
        message = f"The quorum is {requested}, but the panel gives at most {answers} answers."
        raise RequestError(message, "fusion.min_successful_responses")
    return min(quorum or 2, answers)


def _gate(name: str, ensemble: Ensemble, mode: GateMode | None, overrides: Overrides, models: Models) -> Gate | None:
    if overrides.outer is not None:
        asked = None if overrides.panel_required else overrides.options.given().get("gate", "judge")
        return _gate_of_outer(overrides.outer, asked, ensemble, models)
    configured = ensemble.gate
    mode = mode or (configured.mode if configured else "off")
    if mode == "off":
        return None
    if overrides.panel_required:
        if not ensemble.allow_overrides:
            message = f"cappella/{name} has a gate, and allows no overrides: send tool_choice: auto."
            raise RequestError(message, "tool_choice", "overrides_forbidden")
        return None
    if configured is None:
        message = f"cappella/{name} has no gate: its config sets no gate model."
        raise RequestError(message, "fusion.gate")
    return Gate(mode, configured.model, configured.max_words)


def _gate_of_outer(model: str, mode: GateMode | None, ensemble: Ensemble, models: Models) -> Gate | None:
    """The gate of a called model, which decides by itself; one whose server cannot choose a word always asks the panel."""
    if mode is None or mode == "off" or (mode == "judge" and not models[model].capabilities.extensions):
        return None
    max_words = (ensemble.gate or GateConfig(mode=mode, model=model)).max_words
    return Gate(mode, model, max_words, decider=model)


def _require_models(names: Sequence[str], models: Models, param: str) -> None:
    for name in names:
        if name.startswith("cappella/"):
            message = f"{name!r} is an ensemble; a member or judge must be a model."
            raise RequestError(message, param, "nested_ensemble")
        if name not in models:
            raise UnknownModel(name, sorted(models), param)
