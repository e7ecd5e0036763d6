"""A benchmark as one SVG: throughput, latency and the stages of a run over everything that was varied."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cappella.bench.figures import STAGES, Figures
from cappella.errors import ConfigError

INCHES = (14, 4.2)


def draw(all_figures: Sequence[Figures], path: Path) -> None:
    """Raises ConfigError if matplotlib is not installed."""
    try:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ConfigError("this Python", "matplotlib is not installed", "pip install 'cappella[bench]'") from error
    figure, (runs, latency, stages) = pyplot.subplots(1, 3, figsize=INCHES, layout="constrained")
    _lines(runs, all_figures, "runs per second", lambda each: each.runs_per_s)
    _lines(latency, all_figures, "whole answer, seconds: p50, with p95 dashed", lambda each: each.total_s.p50)
    _lines(latency, all_figures, None, lambda each: each.total_s.p95, linestyle="--", alpha=0.5)
    _stages(stages, [each for each in all_figures if each.stages])
    handles, names = runs.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path)
    pyplot.close(figure)


def _lines(
    axes: Any, all_figures: Sequence[Figures], title: str | None, of: Callable[[Figures], float], **style: Any
) -> None:
    """A line per system over the points, in the order of measurement."""
    points = list(dict.fromkeys(_point(each) for each in all_figures))
    systems = list(dict.fromkeys(each.system for each in all_figures))
    for number, system in enumerate(systems):
        own = [(points.index(_point(each)), of(each)) for each in all_figures if each.system == system]
        axes.plot(*zip(*own, strict=True), marker="o", color=f"C{number}", label=system, **style)
    axes.set_xticks(range(len(points)), points, fontsize="small")
    axes.set_ylim(bottom=0)
    if title:
        axes.set_title(title, fontsize="medium")


def _stages(axes: Any, traced: Sequence[Figures]) -> None:
    """A bar per system and point: the stages in order, medians."""
    left = [0.0] * len(traced)
    for stage in STAGES:
        widths = [each.stages[stage] if each.stages else 0.0 for each in traced]
        axes.barh(range(len(traced)), widths, left=left, label=stage)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(traced)), [f"{each.system}\n{_point(each)}" for each in traced], fontsize="x-small")
    axes.invert_yaxis()
    axes.set_title("stages of a run, seconds (medians)", fontsize="medium")
    axes.legend(fontsize="small")


def _point(each: Figures) -> str:
    """The label of a point."""
    tokens = f"\n{each.answer_tokens} tokens" if each.answer_tokens else ""
    return f"{each.load}\npanel {each.panel}{tokens}"
