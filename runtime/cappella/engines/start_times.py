"""How long a model's last start took, stage by stage; what is left of one that is under way is told from that."""

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from cappella.engines.vllm.startup_log import FIRST_STAGE, STAGES

ORDER = (FIRST_STAGE, *(stage for _, stage, _ in STAGES))
MAX_KEPT = 200
"""Models, of which the one that started the longest ago goes first."""

Seconds = Mapping[str, float]
"""By stage."""


class StartTimes:
    """Of one model, in a file that all share. It never fails: what cannot be read is not known, nor kept if not written."""

    def __init__(self, file: Path, key: str) -> None:
        self._file = file
        self._key = key

    def last(self) -> Seconds | None:
        """None if there was no start that is known of."""
        found = self._read().get(self._key)
        return found if found and _is_seconds(found) else None

    def keep(self, took_s: Seconds) -> None:
        known = self._read()
        known.pop(self._key, None)
        kept = dict(list(known.items())[1 - MAX_KEPT :])
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            _write(self._file, json.dumps({**kept, self._key: {stage: round(s, 2) for stage, s in took_s.items()}}))

    def _read(self) -> dict[str, Seconds]:
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


class Countdown:
    """One start. What it says is left only ever falls, and never below nothing: a late stage holds it up."""

    def __init__(self, last: Seconds | None) -> None:
        self._last = last
        self._stage = FIRST_STAGE
        self._seen_at = time.monotonic()
        self.took_s = dict.fromkeys(ORDER, 0.0)

    def left_s(self, stage: str) -> float | None:
        """With the start at this stage now; None if nobody knows."""
        now = time.monotonic()
        self.took_s[self._stage] += now - self._seen_at
        self._stage, self._seen_at = stage, now
        if self._last is None:
            return None
        here = max(0.0, self._last.get(stage, 0.0) - self.took_s[stage])
        return round(here + sum(self._last.get(later, 0.0) for later in ORDER[ORDER.index(stage) + 1 :]), 1)


def _is_seconds(found: object) -> bool:
    if not isinstance(found, dict):
        return False
    return all(isinstance(s, int | float) and math.isfinite(s) and s >= 0 for s in found.values())


def _write(file: Path, text: str) -> None:
    """Whole or not at all: other servers read it."""
    with NamedTemporaryFile("w", dir=file.parent, prefix=file.name, delete=False, encoding="utf-8") as new:
        new.write(text)
    os.replace(new.name, file)
