"""The one reader of the figures that a vLLM server shows on its /metrics page."""

import math
import re

from cappella.engines.base import EngineFigures

_FIGURES = re.compile(
    r"^vllm:(kv_cache_usage_perc|num_requests_running|num_requests_waiting|generation_tokens_total"
    r"|prompt_tokens_total)\{[^}]*\} (\S+)$",
    re.MULTILINE,
)


def figures(page: str) -> EngineFigures:
    """What matters to us; of several series of one name, as for adapters, the sum. What is no number is left out."""
    found: dict[str, float] = {}
    for name, text in _FIGURES.findall(page):
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value):
            found[name] = found.get(name, 0.0) + value
    return EngineFigures(
        found.get("kv_cache_usage_perc"),
        _whole(found.get("num_requests_running")),
        _whole(found.get("num_requests_waiting")),
        found.get("generation_tokens_total"),
        found.get("prompt_tokens_total"),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
