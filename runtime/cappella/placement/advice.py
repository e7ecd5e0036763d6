"""The plan of a config on a machine; where it does not fit, with what would help."""

from collections.abc import Mapping

from cappella.config import Config
from cappella.errors import DoesNotFit
from cappella.placement import changes, contexts, planner
from cappella.placement.footprint import Footprint, footprint
from cappella.placement.machine import Machine
from cappella.placement.planner import Plan


def plan(config: Config, machine: Machine) -> Plan:
    """The placement of the local models. Raises ConfigError for unreadable models; DoesNotFit with the cheapest changes."""
    config, footprints, machine = measured(config, machine)
    try:
        return planner.place(config, footprints, machine)
    except DoesNotFit as error:
        helpful = changes.cheapest(config, footprints, machine)
        options = "; or ".join(change.description for change in helpful)
        hint = f"Each of these would do: {options}" if options else "Use fewer or smaller models"
        pastes = [change.paste for change in helpful if change.paste]
        raise DoesNotFit(error.place, error.problem, hint, pastes) from error


def found(config: Config, machine: Machine) -> Plan | None:
    """The placement, or None if the models do not fit: at once, since it looks for no changes. Raises ConfigError."""
    try:
        return planner.place(*measured(config, machine))
    except DoesNotFit:
        return None


def measured(config: Config, machine: Machine) -> tuple[Config, Mapping[str, Footprint], Machine]:
    """The config of the local models with their contexts, the footprints, and the machine as far as it may be used."""
    config = config.model_copy(update={"models": config.local})
    if config.placement.memory_bytes is not None:
        machine = machine.limited(config.placement.memory_bytes)
    least = {name: footprint(name, model, machine) for name, model in config.local.items()}
    footprints = contexts.chosen(config, least, machine)
    models = {name: each.model for name, each in footprints.items()}
    return config.model_copy(update={"models": models}), footprints, machine
