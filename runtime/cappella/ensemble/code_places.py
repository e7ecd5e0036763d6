"""Knows where a text that comes in pieces is inside code: a fence that begins a line, or backticks within one."""

import re
from typing import Literal

Kind = Literal["ticks", "newline", "blank", "words"]

MAX_LINE_BEGIN = 40
"""So many characters of a line are kept: a fence stands near its beginning."""
MIN_FENCE = 3
_LINE_BEGIN = re.compile(r"[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*")


class CodePlaces:
    """Where the text so far ends. Backticks that nothing closes reach to the end of their line, an open fence to that of the text."""

    def __init__(self) -> None:
        self._line = ""
        self._run = ""
        self._run_begins_line = False
        self._fence = ""
        self._names_language = self._may_close = False
        self._ticks = 0

    def add(self, text: str, kind: Kind) -> None:
        """More of the text, all of one kind; a run of backticks or tildes may come in several pieces."""
        if kind == "ticks":
            self._add_run(text)
        else:
            self._end_run()
            if kind == "newline":
                self._end_line()
            elif kind == "words":
                self._may_close = False
        if kind != "newline" and len(self._line) <= MAX_LINE_BEGIN:
            self._line += text[: MAX_LINE_BEGIN + 1]

    def has_code(self) -> bool:
        """Whether what comes next, which is no backtick or tilde, is inside code."""
        self._end_run()
        return bool(self._fence or self._ticks)

    def _add_run(self, text: str) -> None:
        if self._run and self._run[0] != text[0]:
            self._end_run()
        if not self._run:
            self._run_begins_line = len(self._line) <= MAX_LINE_BEGIN and bool(_LINE_BEGIN.fullmatch(self._line))
        self._run += text

    def _end_run(self) -> None:
        run, self._run = self._run, ""
        if run and self._fence:
            self._end_run_in_fence(run)
        elif run and self._run_begins_line and len(run) >= MIN_FENCE and not self._ticks:
            self._fence, self._names_language = run, True
        elif run and run[0] == "`":
            self._ticks = 0 if self._ticks == len(run) else self._ticks or len(run)

    def _end_run_in_fence(self, run: str) -> None:
        self._may_close = self._run_begins_line and run.startswith(self._fence)
        if self._names_language and run[0] == self._fence[0] == "`":
            # No fence has backticks after it in its line: it was code within the line.
            self._ticks = 0 if len(run) == len(self._fence) else len(self._fence)
            self._fence, self._names_language = "", False

    def _end_line(self) -> None:
        if self._may_close:
            self._fence = ""
        self._line, self._ticks = "", 0
        self._names_language = self._may_close = False
