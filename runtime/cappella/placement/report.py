"""The output of `cappella plan`: a table of models and a bar for each GPU, or JSON."""

import json
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cappella.config import Config
from cappella.errors import DoesNotFit
from cappella.placement import advice, machine
from cappella.placement.machine import Device, Machine
from cappella.placement.planner import Placed, Plan

BAR_CELLS = 40
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")
GIB = 1 << 30
LEGEND = "GiB on each GPU; context: max_model_len in tokens; runs at once: sequences of it that fit the KV cache\n"


def show(config: Config, described: Machine | None, as_json: bool) -> None:
    """Print the plan for a described machine, or for this one. Raises ConfigError, or DoesNotFit with possible changes."""
    try:
        plan = advice.plan(config, described or machine.own())
    except DoesNotFit as error:
        if described or machine.has_gpu():
            raise
        hint = f"{error.hint}. This machine has no GPU: to plan for another one, use --gpus 1x80GiB"
        raise DoesNotFit(error.place, error.problem, hint) from error
    if as_json:
        remote = [{"model": name, "url": model.url} for name, model in config.remote.items()]
        print(json.dumps({**as_dict(plan), "remote": remote}, indent=2))
    else:
        Console(highlight=False).print(picture(plan))
        for name, model in config.remote.items():
            print(f"{name}: remote, at {model.url}; it uses no memory here")


def as_dict(plan: Plan) -> dict[str, object]:
    """The plan as JSON; sizes are bytes on each of a model's GPUs."""
    devices = [asdict(device) for device in plan.machine.devices]
    models = [{**asdict(each), "total_bytes": each.total_bytes} for each in plan.placed.values()]
    return {"gpu": plan.machine.gpu, "devices": devices, "models": models}


def picture(plan: Plan) -> RenderableType:
    """The table of models, with a bar for each GPU and turn below it."""
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(plan.placed)}
    turns: list[int | None] = list(range(len(plan.turns))) or [None]
    bars = [_bar(plan, device, turn, colours) for turn in turns for device in plan.machine.devices]
    return Group(_table(plan, colours), Text(LEGEND, "dim"), *bars)


def _table(plan: Plan, colours: dict[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model")
    table.add_column("on")
    for heading in ("weights", "KV", "overhead", "total", "context", "runs\nat once"):
        table.add_column(heading, justify="right")
    table.add_column("reason")
    for name, each in plan.placed.items():
        sizes = (each.weight_bytes, each.kv_cache_bytes, each.overhead_bytes, each.total_bytes)
        cells = [f"{size / GIB:.2f}" for size in sizes]
        held = (str(each.max_model_len), f"{each.sequences:.1f}")
        table.add_row(Text(name, colours[name]), _where(plan, each), *cells, *held, each.why)
    return table


def _where(plan: Plan, each: Placed) -> str:
    if not plan.machine.gpu:
        return "memory"
    return "GPU " + ",".join(str(gpu) for gpu in each.gpus)


def _bar(plan: Plan, device: Device, turn: int | None, colours: dict[str, str]) -> Text:
    """The bar of one GPU: the share of each model, light cells for free memory, dark ones for other processes."""
    cell_bytes = device.total_bytes / BAR_CELLS
    bar = Text(f"{device.name}{'' if turn is None else f', turn {turn + 1}'}".ljust(16))
    awake = plan.on(device.index, turn)
    ends, end = [], 0
    for each in awake:
        end += each.total_bytes
        ends.append((round(end / cell_bytes), colours[each.model]))
    drawn = 0
    for stop, colour in ends:
        bar.append("█" * (stop - drawn), colour)
        drawn = max(drawn, stop)
    others = round((device.total_bytes - device.free_bytes) / cell_bytes)
    bar.append("░" * max(0, BAR_CELLS - others - drawn) + "▒" * others, "dim")
    bar.append(f" {end / GIB:.1f} of {device.free_bytes / GIB:.1f} GiB")
    return bar
