"""Parser of a vLLM server's /metrics page."""

import math
import re

from cappella.engines.base import EngineStats

_SERIES = re.compile(
    r"^vllm:(kv_cache_usage_perc|num_requests_running|num_requests_waiting|generation_tokens_total"
    r"|prompt_tokens_total)\{[^}]*\} (\S+)$",
    re.MULTILINE,
)


def parse(page: str) -> EngineStats:
    """The server's load; series of one name, such as one per adapter, are added up, and invalid numbers left out."""
    totals: dict[str, float] = {}
    for name, text in _SERIES.findall(page):
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value):
            totals[name] = totals.get(name, 0.0) + value
    return EngineStats(
        totals.get("kv_cache_usage_perc"),
        _integer(totals.get("num_requests_running")),
        _integer(totals.get("num_requests_waiting")),
        totals.get("generation_tokens_total"),
        totals.get("prompt_tokens_total"),
    )


def _integer(value: float | None) -> int | None:
    return None if value is None else int(value)
