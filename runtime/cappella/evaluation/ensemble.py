"""The ensemble that is evaluated: its members, its judge, and what identifies their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cappella.config import Config, identity
from cappella.errors import ConfigError
from cappella.types import Json

PREFIX = "cappella/"


@dataclass(frozen=True, slots=True)
class Member:
    """One answer of the panel: `sampling` and `system` are its seat's. Each has a `seed` of its own, as in a run.

    One whose seat `has_tools` is asked without them; runs ask its seat anew.
    """

    name: str
    model: str
    sampling: Json = field(default_factory=dict)
    system: str | None = None
    seed: int = 0
    has_tools: bool = False


@dataclass(frozen=True, slots=True)
class Ensemble:
    """`presets` have those seats of their own panels that are also the ensemble's, None for all. `identities` tell by model which weights it has and how it is served; `settings` are those of its judge's calls."""

    name: str
    members: Sequence[Member]
    judge: str
    judge_sampling: Json
    presets: Mapping[str, Sequence[str] | None]
    identities: Mapping[str, str]
    settings: str

    @property
    def called(self) -> str:
        return f"{PREFIX}{self.name}"

    @property
    def has_tools(self) -> bool:
        return any(member.has_tools for member in self.members)

    def given_to(self, preset: str) -> list[str]:
        """The members whose answers a preset's own panel would give: the same seats, without tools."""
        own = self.presets.get(preset)
        names = [member.name for member in self.members if not member.has_tools]
        return [name for name in names if own is None or name.partition("~")[0] in own]

    def named(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)


def from_config(config: Config, name: str, rubric_judge: str | None = None) -> Ensemble:
    """The ensemble of a config, with the identity of a judge of rubrics. Raises ConfigError if there is none of that name."""
    if name not in config.ensembles:
        known = ", ".join(config.ensembles)
        raise ConfigError("--ensemble", f"there is no ensemble {name!r}", f"Use one of {known}")
    found = config.ensembles[name]
    answers = [(each, seat) for seat in found.seats for each in seat.answer_names]
    members = [
        Member(each, seat.model, dict(seat.sampling.given()), seat.system, seed, bool(seat.tools.servers))
        for seed, (each, seat) in enumerate(answers)
    ]
    used = {*(model for _, model in found.models), *(member.model for member in members)}
    used |= {rubric_judge} & config.models_by_name.keys() if rubric_judge else set()
    identities = {each: identity.of_model(config, each) for each in sorted(used)}
    sampling = dict(found.judge.sampling.given())
    presets = {
        each: [seat.name for seat in found.seats_of(preset) if seat in found.seats] if preset.panel else None
        for each, preset in found.presets.items()
    }
    return Ensemble(name, members, found.judge.model, sampling, presets, identities, found.model_dump_json())


def from_server(models: Mapping[str, Json], name: str, url: str, rubric_judge: str | None = None) -> Ensemble:
    """The ensemble as a server lists it, which tells neither sampling nor weights. Raises ConfigError if it is not listed."""
    entry = models.get(f"{PREFIX}{name}")
    if entry is None or "panel" not in entry:
        known = ", ".join(each.removeprefix(PREFIX) for each in models if each.startswith(PREFIX)) or "none"
        raise ConfigError("--ensemble", f"{url} has no ensemble {name!r}", f"It has {known}")
    members = [Member(seat, seat.partition("#")[0], seed=seed) for seed, seat in enumerate(entry["panel"])]
    # Where no run asks one, the first member stands for it, as in a config.
    judge = entry.get("judge") or members[0].model
    used = {judge, rubric_judge or judge, *(member.model for member in members)}
    told = ("id", "max_model_len", "revision", "digest", "weights")
    identities = {model: f"{url} {[models.get(model, {}).get(key) for key in told]}" for model in sorted(used)}
    settings = f"{url} {entry['panel']} {judge}"
    return Ensemble(name, members, judge, {}, dict.fromkeys(entry.get("presets", ())), identities, settings)
