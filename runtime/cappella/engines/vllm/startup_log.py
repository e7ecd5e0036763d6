"""How far a start has come, read from the engine's log as it grows."""

import re
from pathlib import Path

FIRST_STAGE = "importing vLLM"
STAGES = (
    ("non-default args", "reading the model's config", 0.6),
    ("Initializing a V1 LLM engine", "starting the engine core", 0.7),
    ("Starting to load model", "loading weights", 0.75),
    ("Loading weights took", "making the KV cache", 0.8),
    ("init engine", "starting the server", 0.85),
    ("Starting vLLM server", "answering a first token", 0.95),
)
"""Marks in vLLM's log, the stage that begins there, and the share of the whole start that lies behind."""
CONFIG_STAGES = frozenset((FIRST_STAGE, STAGES[0][1]))
"""Here an engine reads what it was told, and has not yet touched a GPU or the weights."""
MAX_READ_BYTES = 1 << 20

# A hung engine says so once a minute.
_WAITS = re.compile(rb"waiting for|No available shared memory", re.IGNORECASE)


class StartupLog:
    """`stage` is in words and a share of the whole; `grown_bytes` are those lines that tell of more than of waiting."""

    def __init__(self) -> None:
        self.stage = (FIRST_STAGE, 0.05)
        self.grown_bytes = 0
        self._read_bytes = 0
        self._rest = b""

    def read(self, log: Path) -> None:
        """What has been added since the last time. Raises OSError."""
        with log.open("rb") as file:
            file.seek(self._read_bytes)
            new = file.read(MAX_READ_BYTES)
        self._read_bytes += len(new)
        # A progress bar goes back to the beginning of its line.
        *lines, self._rest = (self._rest + new).replace(b"\r", b"\n").split(b"\n")
        self._rest = self._rest[-MAX_READ_BYTES:]
        self.grown_bytes += sum(len(line) for line in lines if not _WAITS.search(line))
        reached = [STAGES.index(row) for row in STAGES for line in (*lines, self._rest) if row[0].encode() in line]
        if reached:
            self.stage = max(self.stage, STAGES[max(reached)][1:], key=lambda stage: stage[1])
