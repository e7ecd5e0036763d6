"""Checks the tools of seats: that they exist, stand once in a list, and that their models can call any."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from cappella.config import Config, Judge, Member, yaml_source
from cappella.config.yaml_source import Path_
from cappella.errors import ConfigError


def check(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    """Names that tools and documents share, and seats and judges whose `tools` cannot be used."""
    for name in config.tools:
        if name in config.documents:
            at = yaml_source.place(path, root, ("documents", name))
            yield ConfigError(at, f"{name!r} names both tools and documents, and seats name either", "Rename one")
    for where, user in _users(config):
        yield from _of_user(path, root, config, where, user)


def _users(config: Config) -> Iterator[tuple[Path_, Member | Judge]]:
    """Every seat and judge with tools, and its place."""
    for name, ensemble in config.ensembles.items():
        for part in ensemble.parts:
            preset = next((each for each, other in ensemble.presets.items() if other is part), None)
            where: Path_ = ("ensembles", name) if preset is None else ("ensembles", name, "presets", preset)
            for number, seat in enumerate(part.panel or ()):
                yield (*where, "panel", number), seat
            for judge in part.judge.in_order if part.judge else ():
                yield (*where, "judge"), judge


def _of_user(
    path: Path, root: yaml.Node | None, config: Config, where: Path_, user: Member | Judge
) -> Iterator[ConfigError]:
    at = yaml_source.place(path, root, (*where, "tools"))
    known = [*config.tools, *config.documents]
    for name, count in Counter(user.tools).items():
        if name not in known:
            hint = f"Use one of {', '.join(known)}" if known else "Add it to the config's tools or documents"
            yield ConfigError(at, f"there are no tools or documents named {name!r}", hint)
        if count > 1:
            yield ConfigError(at, f"{name!r} stands there twice", "Name it once")
    if "tool_choice" in user.model_fields_set and not user.tools:
        choice = yaml_source.place(path, root, (*where, "tool_choice"))
        yield ConfigError(choice, "tool_choice needs tools to choose from", "Add tools here, or remove tool_choice")
    model = config.models_by_name.get(user.model)
    if not user.tools or model is None:
        return
    if not model.capabilities.writes:
        yield ConfigError(at, f"{user.model} calls no tools: it has a task", "Remove tools here")
    elif not model.capabilities.tools:
        key = "tools" if user.model in config.remote else "tool_parser"
        yield ConfigError(at, f"{user.model} has no {key}, so it calls no tools", f"Set models.{user.model}.{key}")
