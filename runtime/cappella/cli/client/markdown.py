"""Markdown on a terminal: prose is wrapped between words; code and long words are not, so that they can be copied."""

import re

from rich.cells import cell_len
from rich.console import Console, Group
from rich.text import Text

_FENCE = re.compile(r"(?:[ >]|[-*+] |\d+[.)] )*(`{3,}|~{3,})")
_INDENT = "    "


class MarkdownPrinter:
    """Prints a text that grows. A line of code is one line for whoever copies it, however wide the terminal is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._fence = ""
        self._is_at_line_start = True

    def print(self, text: str) -> None:
        """Print more of the text, up to where `printable` allows or to its end."""
        lines = text.removesuffix("\n").split("\n")
        self._console.print(Group(*(self._rendered(line) for line in lines)), crop=False)
        self._is_at_line_start = text.endswith("\n")

    def printable(self, pending: str) -> int:
        """How many of the pending characters stand on lines that are complete, or full at this width."""
        ended = pending.rfind("\n") + 1
        tail = pending[ended:]
        full = _wrapped(tail, self._console.width)[:-1]
        return ended if not full or self._may_be_code(pending, ended) else ended + sum(map(len, full))

    def _rendered(self, line: str) -> Text:
        lines = [line] if self._update_fence(line) else _wrapped(line, self._console.width)
        self._is_at_line_start = True
        return Text("\n".join(each.rstrip() for each in lines), no_wrap=True, overflow="ignore")

    def _update_fence(self, line: str) -> bool:
        """Track opening and closing fences; returns whether the line is code."""
        mark = _FENCE.match(line) if self._is_at_line_start else None
        if not self._fence:
            self._fence = mark[1] if mark else ""
            return bool(mark) or (self._is_at_line_start and line.startswith(_INDENT))
        if mark and mark[1].startswith(self._fence) and not line[mark.end() :].strip():
            self._fence = ""
        return True

    def _may_be_code(self, pending: str, tail_at: int) -> bool:
        """Whether the last, unfinished line is code, after the lines before it."""
        ahead = MarkdownPrinter(self._console)
        ahead._fence, ahead._is_at_line_start = self._fence, self._is_at_line_start
        for line in pending[:tail_at].split("\n")[:-1]:
            ahead._rendered(line)
        return ahead._update_fence(pending[tail_at:])


def _wrapped(line: str, width: int) -> list[str]:
    """The line cut between words; together they are the line. A word that is too long is left to the terminal."""
    out, used = [""], 0
    for word in re.findall(r"\s*\S+\s*|\s+", line):
        if used and used + cell_len(word.rstrip()) > width:
            out.append("")
            used = 0
        out[-1] += word
        used += cell_len(word)
    return out
