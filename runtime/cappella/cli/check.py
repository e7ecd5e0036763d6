"""`cappella check`: every mistake of a config that can be found without starting it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cappella.cli.completion import CONFIG, HERE
from cappella.cli.errors import one_line_errors


def check(
    config: Annotated[Path, CONFIG] = HERE,
    gpus: Annotated[
        str | None, typer.Option(help="Also check whether these GPUs can run it, instead of this machine's: H100.")
    ] = None,
    tools: Annotated[
        bool, typer.Option("--tools", help="Start the tool servers, and show each with its tools and problems.")
    ] = False,
) -> None:
    """Check a config and the weights it names: all mistakes at once, also those that vLLM would tell minutes after a start.

    On a machine with GPUs, or with --gpus, also whether these can run and hold the models. Starts nothing, but for
    --tools, which ends them again.
    """
    from cappella.cli import tool_report
    from cappella.config import load, yaml_source
    from cappella.engines import backends
    from cappella.errors import DoesNotFit, raise_all
    from cappella.gateway.model_list import stray_keys
    from cappella.placement import checks, machine, reading_room

    with one_line_errors():
        on = machine.described(gpus) if gpus else machine.own() if machine.has_gpu() else None
        loaded, root = load.load_with_lines(config)
        found = [*checks.mistakes(loaded, on), *backends.refused_settings(loaded.local)]
        _describe(loaded, [error.place for error in found])
        does_not_fit = [error for error in found if isinstance(error, DoesNotFit)]
        others = [error for error in found if not isinstance(error, DoesNotFit)]
        raise_all([*yaml_source.located(config, root, others), *does_not_fit])
        for name, ensemble in loaded.ensembles.items():
            panel = ", ".join(seat.name for seat in ensemble.seats)
            quorum = ensemble.quorum_of(sum(seat.samples for seat in ensemble.seats))
            judge = ensemble.judge_of(ensemble)
            judges = "judge " + ", then ".join(each.model for each in judge.in_order) if judge else "no judge"
            print(f"cappella/{name}: {panel} (quorum {quorum}), {judges}")
        contexts = {name: model.max_model_len for name, model in loaded.models.items() if model.max_model_len}
        for name, warning in reading_room.warnings(loaded, contexts):
            print(f"cappella/{name}: {warning}")
        for warning in stray_keys(loaded):
            print(warning)
        if tools and not asyncio.run(tool_report.show(loaded)):
            raise typer.Exit(1)


def _describe(loaded: Any, wrong: Sequence[str]) -> None:
    """The models without a mistake."""
    from cappella.placement import folder, pooling

    for name, model in loaded.local.items():
        if any(f"{place}.".startswith(f"models.{name}.") for place in wrong):
            continue
        found = folder.inspect(name, model.weights, model.card)
        own = pooling.own_context(model, found.config, found.own_context)
        context = "" if model.max_model_len else f", context by the plan, at most {own.default_tokens}"
        print(f"{name}: ok, {model.weights}{context}")
    for name, remote in loaded.remote.items():
        print(f"{name}: {remote.model or name} at {', '.join(remote.urls)}")
