"""How long the stages of a model's last start took, and the estimate of a start's remaining time from it."""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

MAX_MODELS = 200
"""Of more, the one whose last start is the oldest is dropped."""

SecondsByStage = Mapping[str, float]


class StartTimes:
    """The start times of one model, under `key` in a file that all servers share.

    It raises nothing: an unreadable file counts as empty, and a failed write is ignored.
    """

    def __init__(self, file: Path, key: str) -> None:
        self._file = file
        self._key = key

    def last(self) -> SecondsByStage | None:
        """The last start's; None if there is no record of one."""
        seconds = self._read().get(self._key)
        return seconds if seconds and _is_valid(seconds) else None

    def save(self, seconds: SecondsByStage) -> None:
        """Replace the record of the last start."""
        by_key = self._read()
        by_key.pop(self._key, None)
        newest = dict(list(by_key.items())[1 - MAX_MODELS :])
        rounded = {stage: round(s, 2) for stage, s in seconds.items()}
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            _write_atomically(self._file, json.dumps({**newest, self._key: rounded}))

    def _read(self) -> dict[str, SecondsByStage]:
        try:
            by_key = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return by_key if isinstance(by_key, dict) else {}


class Countdown:
    """Measures one start stage by stage, and estimates its remaining time from the `last` one.

    The estimate never rises and is never negative: it stands still while a stage takes longer than last time.
    """

    def __init__(self, stages: Sequence[str], last: SecondsByStage | None) -> None:
        self._stages = stages
        self._last = last
        self._stage = stages[0]
        self._seen_at = time.monotonic()
        self.seconds_by_stage = dict.fromkeys(stages, 0.0)

    def remaining_s(self, stage: str) -> float | None:
        """The estimate with the start in `stage` now; None without a record of the last start."""
        now = time.monotonic()
        self.seconds_by_stage[self._stage] += now - self._seen_at
        self._stage, self._seen_at = stage, now
        if self._last is None:
            return None
        later = self._stages[self._stages.index(stage) + 1 :]
        in_stage = max(0.0, self._last.get(stage, 0.0) - self.seconds_by_stage[stage])
        return round(in_stage + sum(self._last.get(name, 0.0) for name in later), 1)


def _is_valid(seconds: object) -> bool:
    if not isinstance(seconds, dict):
        return False
    return all(isinstance(s, int | float) and math.isfinite(s) and s >= 0 for s in seconds.values())


def _write_atomically(file: Path, text: str) -> None:
    """Other servers read the file meanwhile."""
    with NamedTemporaryFile("w", dir=file.parent, prefix=file.name, delete=False, encoding="utf-8") as new:
        new.write(text)
    os.replace(new.name, file)
