"""The output of `cappella plan`: a table of models, a bar for each GPU, and what each ensemble can do; or JSON."""

import json
import sys
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cappella.config import Config
from cappella.errors import DoesNotFit
from cappella.placement import advice, estimate, improvements, in_use, machine, network, reading_room
from cappella.placement.estimate import Estimate
from cappella.placement.machine import Device, Machine
from cappella.placement.planner import Placed, Plan

BAR_CELLS = 40
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")
GIB = 1 << 30
SHORT_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}
LEGEND = "GiB on each GPU; context: max_model_len in tokens; at once: sequences of that length that fit the KV cache\n"


def show(config: Config, described: Machine | None, as_json: bool) -> None:
    """Print the plan for a described machine, or for this one. Raises ConfigError, or DoesNotFit with possible changes.

    Where the config does not fit beside what uses this machine's GPUs, as it does not while it is served, the plan is for
    the whole GPUs, and a note names what holds them.
    """
    on = described or machine.own()
    try:
        plan = advice.plan(config, on)
    except DoesNotFit as error:
        if described is None and not on.gpu:
            hint = f"{error.hint}. This machine has no GPU: to plan for another one, use --gpus H100"
            raise DoesNotFit(error.place, error.problem, hint, error.pastes) from error
        notes = in_use.notes(on) if described is None else []
        if not notes:
            raise
        on = on.whole()
        plan = advice.plan(config, on)
        print(*notes, "It does not fit beside that, so this plan is for the whole GPUs.", sep="\n", file=sys.stderr)
    if as_json:
        remote = [{"model": name, "url": model.url} for name, model in config.remote.items()]
        print(json.dumps({**as_dict(plan, config), "remote": remote}, indent=2))
    else:
        console = Console(highlight=False)
        console.print(picture(plan, config))
        for change in improvements.of(config, on, plan):
            console.print(f"\nPossible: {escape(change.paste.removeprefix('# ').rstrip())}", soft_wrap=True)
        for name, model in config.remote.items():
            print(f"{name}: remote, at {', '.join(model.urls)}; it uses no memory here")


def as_dict(plan: Plan, config: Config | None = None) -> dict[str, object]:
    """The plan as JSON; sizes are bytes on each of a model's GPUs. Speeds and times are estimates, null where unknown.

    With its config, also what each ensemble can do.
    """
    devices = [{**asdict(device), "kind": device.kind and device.kind.name} for device in plan.machine.devices]
    speeds = estimate.tokens_per_s(plan)
    models = [
        {
            **asdict(each),
            "total_bytes": each.total_bytes,
            "computes_in": _dtype(plan, each),
            "estimated_tokens_per_s": speeds.get(name),
        }
        for name, each in plan.placed.items()
    ]
    sent = network.bytes_per_run(config) if config and plan.machine.is_cluster else {}
    ensembles = [
        {"ensemble": name, **asdict(each), "run_s": each.run_s, "network_bytes_per_run": sent.get(name)}
        for name, each in (estimate.estimates(config, plan).items() if config else ())
    ]
    run = {"prompt_tokens": estimate.PROMPT_TOKENS, "answer_tokens": estimate.ANSWER_TOKENS}
    return {
        "gpu": plan.machine.gpu,
        "devices": devices,
        "models": models,
        "ensembles": ensembles,
        "typical_run": run,
    }


def picture(plan: Plan, config: Config | None = None) -> RenderableType:
    """The table of models, a bar for each GPU and turn, and with the config lines on each ensemble."""
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(plan.placed)}
    turns: list[int | None] = list(range(len(plan.turns))) or [None]
    bars = [_bar(plan, device, turn, colours) for turn in turns for device in plan.machine.devices]
    return Group(_table(plan, colours), Text(LEGEND, "dim"), *bars, *(_told(config, plan) if config else ()))


def _told(config: Config, plan: Plan) -> list[Text]:
    """What each ensemble can do, in words."""
    told = estimate.estimates(config, plan)
    contexts = {name: model.max_model_len for name, model in config.remote.items()}
    contexts |= {config.model_of[server]: placed.max_model_len for server, placed in plan.placed.items()}
    lines = [Text(f"\nA typical run: {estimate.TYPICAL}; the judge reads all answers.", "dim")]
    for name, each in told.items():
        lines.append(Text(f"cappella/{name}: {_runs(each)} at once, limited by {each.limited_by}"))
        lines += [
            Text(
                f"  {model} has a context of {contexts[model]}; such a run needs {need} there",
                "yellow",
            )
            for model, need in each.short.items()
        ]
        if each.run_s is not None:
            parts = f"the panel {_seconds(each.panel_s)}" + (
                f", the judge {_seconds(each.judge_s)}" if each.judge_s else ""
            )
            lines.append(Text(f"  estimate: one run alone takes {_seconds(each.run_s)} ({parts})"))
    if plan.machine.is_cluster:
        lines += [Text(f"cappella/{name}: {each}") for name, each in network.told(config).items()]
    lines += [Text(f"cappella/{name}: {each}", "yellow") for name, each in reading_room.warnings(config, contexts)]
    if speeds := estimate.tokens_per_s(plan):
        each_alone = ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
        lines.append(Text(f"estimate: tokens/s of each model, while it has its GPUs to itself: {each_alone}"))
    elif plan.machine.gpu:
        lines.append(Text("No estimate of speed: these GPUs have no known name. Try --gpus H100, for instance.", "dim"))
    return lines


def _runs(each: Estimate) -> str:
    return f"{each.runs_at_once:.1f} runs"


def _seconds(seconds: float | None) -> str:
    return f"{seconds or 0:.{0 if (seconds or 0) >= 10 else 1}f} s"


def _dtype(plan: Plan, each: Placed) -> str:
    """What it computes in: as the plan chose, or as vLLM will."""
    found = plan.footprints.get(each.model)
    return found.architecture.dtype if found else each.dtype


def _short_dtype(plan: Plan, each: Placed) -> str:
    """What it computes in, and how its weights are quantised."""
    found, dtype = plan.footprints.get(each.model), _dtype(plan, each)
    method = (found.architecture.quantisation.method if found else None) or ""
    return f"{SHORT_DTYPES.get(dtype, dtype)} {method}".strip()


def _table(plan: Plan, colours: dict[str, str]) -> Table:
    # As narrow as it can be, for terminals of 80 columns.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column("on", no_wrap=True)
    for heading in ("weights", "KV", "overhead", "total", "context", "at once"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("dtype", no_wrap=True)
    table.add_column("reason")
    for name, each in plan.placed.items():
        sizes = (each.weight_bytes, each.kv_cache_bytes, each.overhead_bytes, each.total_bytes)
        cells = [f"{size / GIB:.2f}" for size in sizes]
        held = (str(each.max_model_len), f"{each.sequences:.1f}")
        table.add_row(Text(name, colours[name]), _where(plan, each), *cells, *held, _short_dtype(plan, each), each.why)
    return table


def _where(plan: Plan, each: Placed) -> str:
    on = [device for device in plan.machine.devices if device.index in each.gpus]
    node = f"{on[0].node} " if on and on[0].node is not None else ""
    if not plan.machine.gpu:
        return f"{node}memory"
    gpus = [device.index if device.index_there is None else device.index_there for device in on]
    if len(gpus) > 2 and gpus == list(range(gpus[0], gpus[-1] + 1)):
        return f"{node}GPU {gpus[0]}-{gpus[-1]}"
    return f"{node}GPU " + ",".join(str(gpu) for gpu in gpus)


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
