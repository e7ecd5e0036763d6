"""How far the start of a server has come, read from its log as it grows."""

import re
from dataclasses import dataclass
from pathlib import Path

MAX_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a start. It begins with the first log line that holds one of its `marks`; the first stage has none.

    `progress` is the share of the whole start, from 0 to 1, that lies behind when it begins. In a stage that
    `reads_config` the server has touched neither a GPU nor the weights.
    """

    name: str
    progress: float
    marks: tuple[str, ...] = ()
    reads_config: bool = False


@dataclass(frozen=True, slots=True)
class StartupStages:
    """The stages of one kind of server, in order. A log line that matches `idle_line` shows no progress."""

    stages: tuple[Stage, ...]
    idle_line: re.Pattern[bytes]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)


class StartupLog:
    """`stage` is the last one that has begun, `grown_bytes` the size of all lines so far that show progress."""

    def __init__(self, stages: StartupStages) -> None:
        self.stages = stages
        self.stage = stages.stages[0]
        self.grown_bytes = 0
        self._read_bytes = 0
        self._rest = b""

    def read(self, log: Path) -> None:
        """Read what was added since the last call. Raises OSError."""
        with log.open("rb") as file:
            file.seek(self._read_bytes)
            new = file.read(MAX_READ_BYTES)
        self._read_bytes += len(new)
        # A progress bar returns to the beginning of its line.
        *lines, self._rest = (self._rest + new).replace(b"\r", b"\n").split(b"\n")
        self._rest = self._rest[-MAX_READ_BYTES:]
        self.grown_bytes += sum(len(line) for line in lines if not self.stages.idle_line.search(line))
        for stage in self.stages.stages:
            begun = any(mark.encode() in line for mark in stage.marks for line in (*lines, self._rest))
            if begun and stage.progress > self.stage.progress:
                self.stage = stage
