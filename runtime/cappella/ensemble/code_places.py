"""Knows where a text that comes in pieces is inside code: a fence that begins a line, or backticks within one."""

import re
from typing import Literal

Kind = Literal["ticks", "newline", "blank", "words"]

MAX_LINE_BEGIN = 40
"""So many characters of a line are kept: a fence stands near its beginning."""
MIN_FENCE = 3
MAX_TAG_CHARS = 60
_INDENTED = re.compile(r" {0,3}\t| {4}")
_LIST_ITEM = re.compile(r"[ \t>]*(?:[-*+]|\d{1,9}[.)])[ \t]")
_TAG = re.compile(r"<(/?)(?:code|pre|kbd|samp|script|math)\b", re.IGNORECASE)
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
        self._is_over_line = False
        self._tag = ""
        self._in_tag = False
        self._math = self._dollars = ""

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
        self._add_tag(text)
        self._add_math(text)
        if kind != "newline" and len(self._line) <= MAX_LINE_BEGIN:
            self._line += text[: MAX_LINE_BEGIN + 1]

    def has_code(self) -> bool:
        """Whether what comes next, which is no backtick or tilde, is inside code."""
        self._end_run()
        return bool(self._fence or (self._ticks and not self._is_over_line))

    def may_be_code(self) -> bool:
        """Whether what comes next may be code, too, or mathematics: in an indented line, a tag, or backticks of an earlier line."""
        is_indented = bool(_INDENTED.match(self._line)) and not _LIST_ITEM.match(self._line)
        return self.has_code() or bool(self._ticks) or is_indented or self._in_tag or bool(self._math or self._dollars)

    def _add_tag(self, text: str) -> None:
        if text == "<":
            self._tag = text
        elif text == ">":
            if found := _TAG.match(self._tag):
                self._in_tag = not found[1]
            self._tag = ""
        elif self._tag:
            self._tag = (self._tag + text)[:MAX_TAG_CHARS]

    def _add_math(self, text: str) -> None:
        """A dollar before a digit or a blank is money, unless it closes."""
        if text == "$":
            self._dollars += text
        elif dollars := self._dollars:
            self._dollars = ""
            if self._math:
                self._math = "" if dollars == self._math else self._math
            elif dollars == "$$" or (dollars == "$" and not (text[0].isdigit() or text[0].isspace())):
                self._math = dollars
        if text == "\n" and self._math == "$":
            self._math = ""

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
        elif run and self._run_begins_line and len(run) >= MIN_FENCE and (self._is_over_line or not self._ticks):
            self._ticks = 0
            self._fence, self._names_language = run, True
        elif run and run[0] == "`":
            self._is_over_line = self._is_over_line and self._ticks != len(run)
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
        self._is_over_line = bool(self._ticks and self._line.strip())
        self._ticks = self._ticks if self._is_over_line else 0
        self._line = ""
        self._names_language = self._may_close = False
