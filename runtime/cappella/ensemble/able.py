"""Whether the models of a run can do what the request asks of them, told before any is called."""

from collections.abc import Mapping, Sequence

from cappella.config import Ensemble, Model, RemoteModel
from cappella.config.abilities import cannot_write, judge_lacks, may_ask_judge, seat_lacks
from cappella.config.options import Settings
from cappella.config.overrides import Overrides
from cappella.ensemble.messages import has_images
from cappella.ensemble.structured import formats
from cappella.errors import RequestError
from cappella.types import Prompt
from cappella.vocabulary import STRATEGIES, GateMode

Models = Mapping[str, Model | RemoteModel]


def require_capabilities(name: str, ensemble: Ensemble, models: Models, used: Sequence[str], prompt: Prompt) -> None:
    """Raises RequestError for tools or an output format that the `used` models do not support."""
    if prompt.tools:
        if not ensemble.tools:
            raise RequestError(f"cappella/{name} does not accept tools: its config does not set tools: true.", "tools")
        for model in used:
            if not models[model].capabilities.tools:
                raise RequestError(f"{model} does not accept tools: its config sets no tool_parser.", "tools")
    try:
        formats.require_checkable(prompt.output_format)
    except formats.InvalidFormat as error:
        raise RequestError(f"{error}.", prompt.output_format.field if prompt.output_format else None) from error


def judge_problem(models: Models, settings: Settings, prompt: Prompt) -> RequestError | None:
    """What the judge's server does not support of the request; None if it supports all."""
    judge, capabilities, gate = settings.judge, models[settings.judge].capabilities, settings.gate
    mode = gate.mode if gate and gate.decider in (None, judge) else None
    if not settings.may_ask_judge:
        return None
    if lack := judge_lacks(capabilities, settings, mode) or seat_lacks(capabilities, settings.judge_sampling):
        return RequestError(f"{judge} cannot be the judge: {lack[0]}. {lack[1]}.", "fusion.model")
    if settings.criteria and not capabilities.writes:
        return RequestError(f"{judge} scores answers as it was trained to, by no other criteria.", "fusion.criteria")
    if (prompt.tools and not capabilities.tools) or (mode == "tools" and not capabilities.writes):
        return RequestError(f"The judge {judge} does not go on from tools.", "tools")
    field = prompt.output_format.field if prompt.output_format else None
    supported = {"structured_outputs": capabilities.extensions, "response_format": capabilities.json_schema}
    if STRATEGIES[settings.strategy].judge_writes and field and not supported[field]:
        return RequestError(f"The judge {judge} writes the answer, and its server does not support {field}.", field)
    answers = STRATEGIES[settings.strategy].judge_writes or mode == "tools"
    if prompt.logprobs is not None and answers and not capabilities.logprobs:
        return RequestError(
            f"The judge {judge} writes the answer, and its server does not report logprobs.", "logprobs"
        )
    return None


def require_asked_judge(settings: Settings, overrides: Overrides, mode: GateMode | None) -> None:
    """Raises RequestError for a judge, or words for one, where neither this turn of a conversation nor another asks any."""
    if may_ask_judge(settings, mode) or settings.tools_panel == "judge":
        return
    named = {"model": overrides.judge, "criteria": overrides.options.given().get("criteria")}
    if field := next((name for name, value in named.items() if value is not None), None):
        by = ", ".join(settings.select.by)
        message = f"fusion.{field} is for a judge, and none is asked: select counts {by} alone. Leave it out, or"
        raise RequestError(f"{message} have fusion.select count the judge.", f"fusion.{field}")


def require_logprobs(models: Models, settings: Settings, prompt: Prompt) -> None:
    """Raises RequestError for a member that reports none, where the answer is a member's and they are asked for."""
    alone = settings.gate is not None and settings.gate.mode == "tools"
    if prompt.logprobs is None or alone or STRATEGIES[settings.strategy].judge_writes:
        return
    for seat in settings.called_seats:
        if not models[seat.model].capabilities.logprobs:
            message = f"The answer may be that of {seat.name}, and its server does not report logprobs."
            raise RequestError(message, "logprobs")


def require_image_support(models: Models, settings: Settings, prompt: Prompt) -> None:
    """Raises RequestError if the members that accept images are too few for the quorum. Given answers need no eyes."""
    blind = [seat for seat in settings.first_seats if not models[seat.model].capabilities.images]
    able = len(settings.answer_names) - sum(seat.samples for seat in blind)
    if has_images(prompt.messages) and able < settings.quorum:
        names = ", ".join(seat.name for seat in blind)
        message = f"Too few members accept images for the quorum of {settings.quorum}: not {names}."
        raise RequestError(message, "messages")


def require_writers(names: Sequence[str], models: Models) -> None:
    """Raises RequestError for a member that writes nothing."""
    for name in names:
        if lack := cannot_write(models[name].capabilities):
            raise RequestError(f"{name} cannot be a member: {lack[0]}.", "fusion.analysis_models")
