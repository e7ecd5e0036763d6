"""A command in a terminal of 80 by 24, with its screen and keyboard."""

import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fcntl import ioctl

import pyte

from support.command_line import Command, start

COLUMNS, LINES = 80, 24
PATIENCE_S = 60


class _Screen(pyte.HistoryScreen):
    """A screen that answers requests for the cursor position."""

    def __init__(self, type_: Callable[[str], None], columns: int, lines: int) -> None:
        super().__init__(columns, lines, history=1000, ratio=0.001)
        self._type = type_

    def write_process_input(self, data: str) -> None:
        self._type(data)


class Terminal:
    """A terminal that runs `cappella ...`. `seen` is everything that was ever on its screen."""

    def __init__(self, descriptor: int, command: Command, columns: int, lines: int) -> None:
        self._command = command
        self.raw = b""
        self._descriptor = descriptor
        self._screen = _Screen(self.type, columns, lines)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """The text of the scrollback and the screen."""
        above = [
            "".join(line[column].data for column in range(self._screen.columns)).rstrip()
            for line in self._screen.history.top
        ]
        return "\n".join([*above, *self.lines]).rstrip()

    @property
    def is_coloured(self) -> bool:
        return any(cell.fg != "default" for line in self._screen.buffer.values() for cell in line.values())

    @property
    def cursor_is_shown(self) -> bool:
        return not self._screen.cursor.hidden

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def until(self, condition: Callable[[], bool]) -> bool:
        """Process output until the condition holds; False if it never does."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end or not self._draw(0.5):
                return condition()
        return True

    def shows(self, words: str) -> bool:
        return self.until(lambda: words in self.text)

    def ended(self) -> int:
        """Wait for the end; returns the exit code."""
        while self._draw(PATIENCE_S):
            pass
        return self._command.wait(PATIENCE_S)

    def _draw(self, timeout_s: float) -> bool:
        """Process the next output; False once the command has ended."""
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return self._command.poll() is None
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # on Linux that is how a terminal ends
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)


@contextmanager
def terminal(
    *arguments: str, columns: int = COLUMNS, lines: int = LINES, environment: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Start a command in a terminal; it is killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    unset = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")
    own = {name: value for name, value in os.environ.items() if name not in unset}
    own |= {"TERM": "xterm-256color", **(environment or {})}
    # Ctrl-C reaches only what the terminal controls.
    command = start(arguments, [theirs] * 3, own, terminal=True)
    os.close(theirs)
    try:
        yield Terminal(ours, command, columns, lines)
    finally:
        command.kill()
        os.close(ours)
