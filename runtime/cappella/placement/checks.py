"""Mistakes of a config that only show when an engine starts, which `cappella check` tells before: all of them at once."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cappella.config import Config, Ensemble, Model, Preset, cards
from cappella.config.engine_args import canonical
from cappella.errors import ConfigError
from cappella.placement import adapters, advice, architecture, folder, own_context, pooling, quantisation
from cappella.placement.footprint import footprint
from cappella.placement.gpu_kinds import LEAST_CAPABILITY
from cappella.placement.machine import Machine
from cappella.vocabulary import STRATEGIES

NOTES_TOKENS = 512
"""What the judge's prompt has beside the conversation and the answers."""


def mistakes(config: Config, machine: Machine | None) -> list[ConfigError]:
    """What is wrong with the local models and the ensembles; on a machine, also what does not run or fit there."""
    found = [error for name, model in config.local.items() for error in _of_model(name, model, machine)]
    found += _of_gpus(machine) if machine else []
    if machine and not any(problem for problem in found if ".weights: " not in problem.place):
        known = {str(error) for error in found}
        found += [error for error in _caught(lambda: advice.plan(config, machine)) if str(error) not in known]
    return found + list(_of_ensembles(config))


def _caught(check: Callable[[], object]) -> list[ConfigError]:
    try:
        check()
    except ConfigError as error:
        return [error]
    return []


def _of_model(name: str, model: Model, machine: Machine | None) -> Iterator[ConfigError]:
    problems = _caught(lambda: folder.inspect(name, model.weights, model.card))
    yield from problems
    if problems and (model.card is None or model.weights.exists()):
        return
    facts = _config_of(name, model)
    for error in _caught(lambda: adapters.served_rank(model)):
        yield ConfigError(error.place.replace("models: ", f"models.{name}."), error.problem, error.hint)
    yield from _caught(lambda: footprint(name, model, machine)) if machine else _of_task(name, model, facts)
    yield from _of_quantisation(name, model, facts, machine)


def _config_of(name: str, model: Model) -> Mapping[str, Any]:
    """config.json, as the folder has it or as the card says."""
    if model.card is not None and not model.weights.exists():
        return cards.load(model.card).config
    return folder.inspect(name, model.weights, model.card).config


def _of_task(name: str, model: Model, facts: Mapping[str, Any]) -> Iterator[ConfigError]:
    """What a footprint tells, too."""
    yield from _caught(lambda: pooling.require_suited(name, model, facts))
    own = pooling.own_context(model, facts, own_context.of(facts))
    overridden = "hf_overrides" in map(canonical, model.engine_args)
    if model.max_model_len and model.max_model_len > own.max_tokens and not overridden:
        problem = f"{model.max_model_len} is more than the model's own context of {own.max_tokens} tokens"
        yield ConfigError(f"models.{name}.max_model_len", problem, "Lower it, or remove it: the plan then chooses")


def _of_quantisation(
    name: str, model: Model, facts: Mapping[str, Any], machine: Machine | None
) -> Iterator[ConfigError]:
    settings = facts.get("quantization_config") or architecture.text_config(facts).get("quantization_config") or {}
    of_weights, known = quantisation.of(settings), _capabilities(machine)
    asked = next((value for key, value in model.engine_args.items() if canonical(key) == "quantization"), None)
    at = f"models.{name}.engine_args.quantization"
    if asked in quantisation.ON_LOAD and of_weights.method and asked != of_weights.method:
        yield ConfigError(at, f"these weights are quantised already ({of_weights.method})", "Remove it")
    if asked in quantisation.OF_FILES and of_weights.method is None:
        hint = f"Write {quantisation.FP8_ON_LOAD}" if asked == "fp8" else "Remove it, or use weights of this kind"
        yield ConfigError(at, f"{asked} is for weights that are stored so, and these are not quantised", hint)
    if of_weights.method and (too_old := [each for each in known if each < of_weights.least_capability]):
        least = _dotted(of_weights.least_capability)
        problem = (
            f"weights in {of_weights.method} need a compute capability of {least}, and a GPU has {_dotted(too_old[0])}"
        )
        yield ConfigError(f"models.{name}.weights", problem, "Use other weights, or a newer GPU")
    if model.kv_cache_dtype == "fp8" and (
        too_old := [each for each in known if each < quantisation.FP8_CACHE_CAPABILITY]
    ):
        least = _dotted(quantisation.FP8_CACHE_CAPABILITY)
        problem = f"a KV cache in fp8 needs a compute capability of {least}, and a GPU has {_dotted(too_old[0])}"
        yield ConfigError(f"models.{name}.kv_cache_dtype", problem, "Remove it")


def _capabilities(machine: Machine | None) -> list[tuple[int, int]]:
    return [each.capability for each in machine.devices if each.capability] if machine else []


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _of_gpus(machine: Machine) -> list[ConfigError]:
    return [
        ConfigError(
            device.name + (f" ({device.kind.name})" if device.kind else ""),
            f"its compute capability is {_dotted(device.capability)}, and vllm 0.32 needs {_dotted(LEAST_CAPABILITY)}",
            "Use a newer GPU",
        )
        for device in machine.devices
        if device.capability and device.capability < LEAST_CAPABILITY
    ]


def _of_ensembles(config: Config) -> Iterator[ConfigError]:
    """Panels whose answers, at the length that the config allows, leave the judge no room to read and write."""
    for name, ensemble in config.ensembles.items():
        parts: list[tuple[str, Ensemble | Preset]] = [("", ensemble)]
        parts += [(f"presets.{each}.", preset) for each, preset in ensemble.presets.items()]
        for where, part in parts:
            yield from _of_panel(config, ensemble, part, f"ensembles.{name}.{where}")


def _of_panel(config: Config, ensemble: Ensemble, part: Ensemble | Preset, place: str) -> Iterator[ConfigError]:
    judge, strategy, seats = ensemble.judge_of(part), ensemble.options_of(part).strategy, ensemble.seats_of(part)
    for number, seat in enumerate(seats if part.panel else ()):
        yield from _of_length(config, f"{place}panel.{number}", seat.model, seat.sampling.max_completion_tokens or 0)
    if judge is None:
        return
    abilities = config.models_by_name[judge.model].capabilities
    context, limits = abilities.context_tokens, [seat.sampling.max_completion_tokens or 0 for seat in seats]
    if context is None:
        return
    if not abilities.writes:
        yield from _of_scorer(judge.model, context, max(limits), f"{place}judge")
        return
    samples = sum(seat.samples for seat in seats)
    answers = sum(limit * seat.samples for limit, seat in zip(limits, seats, strict=True))
    writes = STRATEGIES[strategy].judge_writes
    own = (judge.max_completion_tokens or 0) if writes else 1
    if writes and ensemble.options_of(part).analysis == "before":
        # A run gives the analysis a quarter of the context at most.
        own += min(judge.analysis_max_tokens, context // 4)
    if answers and answers + own + NOTES_TOKENS >= context:
        problem = (
            f"the context of {judge.model} is {context} tokens: {samples} answers of up to {answers} together and its own"
            f" {own} leave no room for a question, so that answers would be cut"
        )
        hint = f"Raise models.{judge.model}.max_model_len, or lower max_completion_tokens of the members or the judge"
        yield ConfigError(f"{place}judge", problem, hint)


def _of_scorer(judge: str, context: int, longest: int, place: str) -> Iterator[ConfigError]:
    """It reads one answer at a time, and no notes of ours."""
    if longest >= context:
        problem = (
            f"the context of {judge} is {context} tokens: an answer of up to {longest} leaves no room for a question,"
            " and would get no score"
        )
        hint = f"Raise models.{judge}.max_model_len, or lower max_completion_tokens of the members"
        yield ConfigError(place, problem, hint)


def _of_length(config: Config, place: str, model: str, tokens: int) -> Iterator[ConfigError]:
    context = config.models_by_name[model].capabilities.context_tokens
    if context is not None and tokens >= context:
        problem = f"max_completion_tokens {tokens} leaves no room for a question in {model}'s context of {context}"
        yield ConfigError(place, problem, f"Lower it, or raise models.{model}.max_model_len")
