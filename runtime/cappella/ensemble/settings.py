"""Request, then preset, then ensemble, then default: everything that decides a run, resolved once."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cappella.config import Ensemble, Model, Preset, RemoteModel, seats
from cappella.config.abilities import JUDGE_CHOOSES, judge_lacks, seat_lacks
from cappella.config.options import Gate, Overrides, Seat, Settings
from cappella.ensemble.messages import has_images
from cappella.ensemble.structured import formats
from cappella.errors import RequestError, UnknownModel
from cappella.types import Capabilities, Prompt, Sampling
from cappella.vocabulary import GateMode

Models = Mapping[str, Model | RemoteModel]


def resolve(
    name: str, ensemble: Ensemble, models: Models, overrides: Overrides, prompt: Prompt, judge_sampling: Sampling
) -> Settings:
    """The settings of one run. Raises RequestError for what the operator forbids or the config does not have."""
    if not ensemble.allow_overrides and overrides.beyond_preset:
        raise RequestError(f"The operator of cappella/{name} allows no overrides.", "fusion", "overrides_forbidden")
    if not prompt.messages:
        raise RequestError("The request says nothing: a conversation needs a message.")
    preset = _preset(name, ensemble, overrides.preset)
    judge = (preset.judge if isinstance(preset, Preset) else None) or ensemble.judge
    said = {"criteria": judge.criteria, **ensemble.given(), **preset.given(), **overrides.options.given()}
    panel = _panel(ensemble, preset, models, overrides, judge_sampling.seed)
    judge_model = judge.model if overrides.judge is None else overrides.judge
    _require_models([judge_model], models, "fusion.model")
    answers = sum(seat.samples for seat in panel)
    _require_traits(name, ensemble, models, [*(seat.model for seat in panel), judge_model], prompt)
    quorum = _quorum(overrides.options.quorum, said.get("quorum"), answers)
    _require_sight(models, panel, quorum, prompt)
    mode = said.get("gate") or (preset.gate if isinstance(preset, Preset) else None)
    said |= {"quorum": quorum, "gate": _gate(name, ensemble, mode)}
    settings = Settings(
        ensemble=name,
        preset=overrides.preset,
        panel=panel,
        judge=judge_model,
        seed=secrets.randbits(32) if judge_sampling.seed is None else judge_sampling.seed,
        judge_sampling=judge_sampling.over(judge.sampling),
        analysis_max_tokens=judge.analysis_max_tokens,
        panel_watched=prompt.watched,
        **said,
    )
    _require_servers(models[judge_model].capabilities, settings, prompt)
    return settings


def _preset(name: str, ensemble: Ensemble, wanted: str | None) -> Preset | Ensemble:
    if wanted is None:
        return ensemble
    if wanted not in ensemble.presets:
        known = f"It has {', '.join(ensemble.presets)}." if ensemble.presets else "It has none."
        message = f"cappella/{name} has no preset {wanted!r}. {known}"
        raise RequestError(message, "fusion.preset", "preset_not_found")
    return ensemble.presets[wanted]


def _panel(
    ensemble: Ensemble, preset: Preset | Ensemble, models: Models, overrides: Overrides, seed: int | None
) -> tuple[Seat, ...]:
    chosen = ensemble.seats_of(preset)
    samples = overrides.options.given().get("samples")
    if overrides.panel is not None:
        _require_models(overrides.panel, models, "fusion.analysis_models")
        configured = {seat.model: seat for seat in reversed(chosen)}
        known = [configured.get(model, Seat(model, model)) for model in overrides.panel]
        chosen = seats((seat.model, seat.sampling, seat.system, seat.samples) for seat in known)
    of_model = dict(overrides.model_sampling)
    _require_seated(of_model, chosen)
    panel, answers = [], 0
    for seat in chosen:
        count = samples or seat.samples
        # Two seats, or two samples, of one model with one seed would say the same thing twice: vLLM gives sample i
        # the seed plus i.
        own = Sampling(seed=None if seed is None else seed + answers)
        sampling = own.over(of_model.get(seat.model, Sampling())).over(overrides.panel_sampling).over(seat.sampling)
        if count > 1 and sampling.temperature == 0:
            message = f"{count} samples of {seat.name} at temperature 0 would all be the same: set fusion.temperature."
            raise RequestError(message, "fusion.samples")
        panel.append(replace(seat, sampling=sampling, samples=count))
        answers += count
    return tuple(panel)


def _require_seated(of_model: Mapping[str, Sampling], panel: Sequence[Seat]) -> None:
    for model in of_model:
        if model not in {seat.model for seat in panel}:
            raise RequestError(f"{model} is not on the panel.", "fusion.analysis_overrides")


def _quorum(asked: int | None, quorum: int | None, answers: int) -> int:
    if asked is not None and asked > answers:
        message = f"{asked} answers cannot come from a panel that gives {answers}."
        raise RequestError(message, "fusion.min_successful_responses")
    return min(quorum or 2, answers)


def _gate(name: str, ensemble: Ensemble, mode: GateMode | None) -> Gate | None:
    configured = ensemble.gate
    mode = mode or (configured.mode if configured else "off")
    if mode == "off":
        return None
    if configured is None:
        message = f"cappella/{name} has no gate: its config names no model to answer alone."
        raise RequestError(message, "fusion.gate")
    return Gate(mode, configured.model, configured.max_words)


def _require_traits(name: str, ensemble: Ensemble, models: Models, used: Sequence[str], prompt: Prompt) -> None:
    """Refuse what the models that are asked cannot honour."""
    if prompt.tools:
        if not ensemble.tools:
            raise RequestError(f"cappella/{name} takes no tools: its config does not say tools: true.", "tools")
        for model in used:
            if not models[model].capabilities.tools:
                raise RequestError(f"{model} takes no tools: its config names no tool_parser.", "tools")
    if prompt.reasoning_effort and not any(models[model].capabilities.reasoning for model in used):
        message = f"None of {', '.join(dict.fromkeys(used))} takes an effort: no config names a reasoning_parser."
        raise RequestError(message, "reasoning_effort")
    try:
        formats.require_checkable(prompt.form)
    except formats.InvalidFormat as error:
        raise RequestError(f"{error}.", prompt.form.field if prompt.form else None) from error


def _require_servers(capabilities: Capabilities, settings: Settings, prompt: Prompt) -> None:
    """Refuse what the server of a judge cannot do."""
    judge, gate = settings.judge, settings.gate.mode if settings.gate else None
    if lack := judge_lacks(capabilities, settings, gate) or seat_lacks(capabilities, settings.judge_sampling):
        raise RequestError(f"{judge} cannot judge this: {lack[0]}. {lack[1]}.", "fusion.model")
    field = prompt.form.field if prompt.form else None
    taken = {"structured_outputs": capabilities.extensions, "response_format": capabilities.json_schema}
    if settings.strategy not in JUDGE_CHOOSES and field and not taken[field]:
        raise RequestError(f"{judge} writes the answer, and its server takes no {field}.", field)
    if prompt.logprobs is not None and not capabilities.logprobs:
        raise RequestError(f"{judge} writes the answer, and its server reports no logprobs.", "logprobs")


def _require_sight(models: Models, panel: Sequence[Seat], quorum: int, prompt: Prompt) -> None:
    """Members that take no images are left out of a run with images: enough must be left."""
    if not has_images(prompt.messages):
        return
    blind = [seat for seat in panel if not models[seat.model].capabilities.images]
    if sum(seat.samples for seat in panel) - sum(seat.samples for seat in blind) < quorum:
        names = ", ".join(seat.name for seat in blind)
        raise RequestError(f"No images are taken by {names}, and the quorum is {quorum}.", "messages")


def _require_models(names: Sequence[str], models: Models, param: str) -> None:
    for name in names:
        if name.startswith("cappella/"):
            message = f"{name!r} is an ensemble, and an ensemble can be neither a member nor a judge."
            raise RequestError(message, param, "nested_ensemble")
        if name not in models:
            raise UnknownModel(name, sorted(models), param)
