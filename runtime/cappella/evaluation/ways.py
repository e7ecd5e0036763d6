"""The ways to answer that an evaluation compares, and the request of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cappella.errors import ConfigError
from cappella.evaluation.data import Question, digest
from cappella.evaluation.ensemble import Ensemble, Member
from cappella.types import Json
from cappella.vocabulary import STRATEGIES

COUNTED = ("members", "best", "self-consistency", "majority", "oracle")
"""Ways that need no call of the judge. They are always in the report; naming them changes nothing."""
JUDGE = "judge"
DEFAULT = "judge,synthesize,select,vote"
SAMPLE_TEMPERATURE = 0.7
SAMPLE_SEED = 1000
RUBRIC_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Way:
    """A run over the panel's stored answers, with these fields of `fusion`; `without` leaves one member's answer out."""

    name: str
    fusion: Json = field(default_factory=dict)
    without: str = ""


def read(text: str, ensemble: Ensemble, leave_out: bool) -> tuple[list[Way], bool]:
    """The runs that `--ways` names, and whether the judge is asked alone. Raises ConfigError for an unknown one."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    runs = [_way(name, ensemble) for name in names if name not in (*COUNTED, JUDGE)]
    if leave_out:
        out = [] if why_all_stay(ensemble) else [member.name for member in ensemble.members]
        runs += [Way(f"{run.name} without {name}", run.fusion, name) for run in list(runs) for name in out]
    return runs, JUDGE in names


def why_all_stay(ensemble: Ensemble) -> str | None:
    """Why no member can be left out; None if each can."""
    if ensemble.has_tools:
        return "a seat has tools: it is asked anew in each way, not by a stored answer that could be left out"
    return None if len(ensemble.members) > 2 else "without one of two members there is no panel"


def _way(name: str, ensemble: Ensemble) -> Way:
    if name.removeprefix("preset:") in ensemble.presets and (name not in STRATEGIES):
        return Way(name, {"preset": name.removeprefix("preset:")})
    if name in STRATEGIES:
        return Way(name, {"strategy": name})
    known = [*COUNTED, JUDGE, *STRATEGIES, *(f"preset:{each}" for each in ensemble.presets)]
    raise ConfigError("--ways", f"{name!r} is no way of cappella/{ensemble.name}", f"Use some of {', '.join(known)}")


def member_body(member: Member, question: Question) -> Json:
    """Asks one member by its own name, as its seat would be asked."""
    messages = _with_system(question.messages, member.system)
    return {"model": member.model, "messages": messages, "seed": member.seed, **member.sampling}


def sample_body(member: Member, question: Question, number: int) -> Json:
    """Asks the member once more, at a temperature at which answers differ."""
    body = {**member_body(member, question), "seed": SAMPLE_SEED + number}
    return {**body, "temperature": member.sampling.get("temperature") or SAMPLE_TEMPERATURE}


def judge_body(ensemble: Ensemble, question: Question) -> Json:
    """Asks the judge's model alone."""
    return {"model": ensemble.judge, "messages": list(question.messages), "seed": 0, **ensemble.judge_sampling}


def rubric_body(model: str, messages: Sequence[Json]) -> Json:
    return {
        "model": model, "messages": list(messages), "temperature": 0, "seed": 0, "max_completion_tokens": RUBRIC_TOKENS
    }  # fmt: skip


def run_body(ensemble: Ensemble, way: Way, question: Question, answers: Sequence[tuple[Member, str]]) -> Json:
    """Runs the ensemble over these answers instead of its panel's.

    The seed differs by question, so that no member is always read first.
    """
    seed = int(digest([question.id, list(question.messages)])[:8], 16)
    fusion = {**way.fusion, **_given(ensemble, way, answers)}
    return {"model": ensemble.called, "messages": list(question.messages), "seed": seed, "fusion": fusion}


def used(ensemble: Ensemble, way: Way) -> list[str]:
    """The members whose answers a run is over: of a preset with a panel of its own those that sit there."""
    return [name for name in ensemble.given_to(str(way.fusion.get("preset"))) if name != way.without]


def _given(ensemble: Ensemble, way: Way, answers: Sequence[tuple[Member, str]]) -> Json:
    """The fields that bring the answers along, under their seats' names, on a panel of those seats alone: nobody is asked anew.

    Only a preset keeps its panel, which may be another, and so does an ensemble with tools: whoever sits there and has no
    answer is asked.
    """
    own = used(ensemble, way)
    answers = [(member, content) for member, content in answers if member.name in own]
    seats = {member.name.partition("~")[0]: member.model for member, _ in answers}
    given = [{"model": member.name.partition("~")[0], "content": content} for member, content in answers]
    if ("preset" in way.fusion or ensemble.has_tools) and not way.without:
        return {"answers": given} if given else {}
    # The server numbers the seats of one model. Where the first of them has no answer, the second cannot be named.
    numbered = [name for i, name in enumerate(seats) if name == _seat_name(list(seats.values())[: i + 1])]
    if len(numbered) == len(seats):
        return {"analysis_models": list(seats.values()), "answers": given}
    return {
        "analysis_models": [],
        "answers": [{"model": member.name, "content": content} for member, content in answers],
    }


def _seat_name(models: Sequence[str]) -> str:
    """The name of the last of these seats."""
    count = models.count(models[-1])
    return models[-1] if count == 1 else f"{models[-1]}#{count}"


def _with_system(messages: Sequence[Json], system: str | None) -> list[Json]:
    if system is None:
        return list(messages)
    first, *rest = messages
    if first["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    return [{**first, "content": f"{system}\n\n{first['content']}"}, *rest]
