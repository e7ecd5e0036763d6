"""The text of files as blocks, each with its place: pages of a PDF, paragraphs of DOCX and HTML, lines, rows of a table."""

import csv
import io
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from cappella.tools.documents import reading
from cappella.tools.documents.folder import Kind, UnfinishedFile, UnreadableFile
from cappella.tools.documents.reader import BROKEN, ENCRYPTED, TOO_COMPLEX
from cappella.tools.documents.reading import ReadingLimits
from cappella.types import Json

Unit = Literal["page", "paragraph", "line", "row"]

_HEADING = re.compile(r"(#{1,6})[ \t]")
_FENCE = re.compile(r"\s{0,3}(```|~~~)")
MAX_HEADING_CHARS = 200
MAX_COLUMN_NAME_CHARS = 200
"""Each row repeats the names of its columns."""
_PROBLEMS = {
    BROKEN: "it is damaged, or not what its name says",
    ENCRYPTED: "it is encrypted",
    TOO_COMPLEX: "it takes too much time or memory to read",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, a line of a table or a page, from the place `first` to `last`, below these headings."""

    text: str
    first: int
    last: int
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file's text; `unit` says what its places count. The blocks can be read once: those of a table are made on the way."""

    unit: Unit
    blocks: Iterable[Block]
    title: str = ""
    is_cut: bool = False


class Parser:
    """Reads files one after the other; those that others' libraries read, in a process each. `stop` ends that at once."""

    def __init__(self, limits: ReadingLimits = ReadingLimits()) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def parse(self, content: bytes, kind: Kind) -> Parsed:
        """The text of a file. Raises UnreadableFile."""
        if kind == "paged":
            return self._document(content)
        if kind == "html":
            told = self._read(content, "html")
            return Parsed("paragraph", _under_headings(_parts(told)), told["title"][:MAX_HEADING_CHARS], told["cut"])
        text = decoded(content)
        kept = text[: self._limits.chars]
        of = {"markdown": markdown, "text": plain, "csv": table}[kind](kept)
        return Parsed(of.unit, of.blocks, of.title, len(kept) < len(text))

    def stop(self) -> None:
        """No further document is read, and the one that is read now is given up."""
        self._is_stopped = True
        if self._process:
            with suppress(ProcessLookupError):
                self._process.kill()

    def _document(self, content: bytes) -> Parsed:
        told = self._read(content)
        parts = _parts(told)
        if told["pages"] is not None:
            pages = [Block(text, at, at) for at, text in enumerate(parts, start=1) if text]
            return Parsed("page", pages, is_cut=told["cut"])
        blocks = _under_headings(parts)
        title = next((block.headings[0] for block in blocks if block.headings), "")
        return Parsed("paragraph", blocks, title, told["cut"])

    def _read(self, content: bytes, *kind: str) -> Json:
        """What the reader found. Raises UnreadableFile."""
        said, pipe = b"", subprocess.PIPE
        command = reading.command(self._limits, *kind)
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env={}, cwd="/", start_new_session=True
        ) as process:
            self._process = process
            if self._is_stopped:
                process.kill()
            try:
                said, _ = process.communicate(content, timeout=self._limits.wall_s)
            except subprocess.TimeoutExpired:
                pass
            finally:
                process.kill()
                self._process = None
        if self._is_stopped:
            raise UnreadableFile("the indexing was stopped")
        if process.returncode == 1:
            raise UnfinishedFile("its reader failed")
        told = reading.found(process.returncode, said)
        if problem := told.get("problem"):
            if process.returncode:
                # Of its own limit, or as the machine had no time or memory then.
                raise UnfinishedFile(_PROBLEMS[problem])
            raise UnreadableFile(_PROBLEMS[problem])
        return told


def _parts(told: Json) -> list[str]:
    text, begin, out = told["text"], 0, []
    for end in told["ends"]:
        out.append(text[begin:end])
        begin = end + 2
    return out


def decoded(content: bytes) -> str:
    """The text of a file: UTF-8, UTF-16 with its mark, or else Windows' Latin. Raises UnreadableFile if it is no text."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    if b"\0" in content:
        raise UnreadableFile("it is no text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def plain(text: str) -> Parsed:
    """Paragraphs of text, by the lines on which they stand."""
    return Parsed("line", list(_paragraphs(text.splitlines(), is_markdown=False)))


def markdown(text: str) -> Parsed:
    """Paragraphs of Markdown below their headings; the first heading is the title."""
    blocks = list(_paragraphs(text.splitlines(), is_markdown=True))
    return Parsed("line", blocks, next((block.headings[0] for block in blocks if block.headings), ""))


def table(text: str) -> Parsed:
    """The rows of a table, each with the names of its columns; the first row is number 1."""
    return Parsed("row", _rows(text))


def _rows(text: str) -> Iterator[Block]:
    """Raises UnreadableFile."""
    delimiter = max(",;\t|", key=text.partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip()[:MAX_COLUMN_NAME_CHARS] for name in next(rows, [])]
        is_empty = True
        for at, row in enumerate(rows, start=2):
            if any(map(str.strip, row)):
                is_empty = False
                yield Block(_row(names, row), at, at)
    except csv.Error as error:
        raise UnreadableFile(f"it is no table ({error})") from error
    if is_empty and names:
        yield Block(", ".join(names), 1, 1)


def _row(names: Sequence[str], row: Sequence[str]) -> str:
    named = [f"{name}: {value.strip()}" for name, value in zip(names, row, strict=False) if value.strip()]
    return "; ".join([*named, *(value.strip() for value in row[len(names) :] if value.strip())])


def _paragraphs(lines: Sequence[str], is_markdown: bool) -> Iterator[Block]:
    """Runs of lines that are not empty; a heading begins one, and code between fences is one."""
    headings: tuple[str, ...] = ()
    said: list[str] = []
    fence = None
    for number, line in enumerate([*lines, ""], start=1):
        mark = _FENCE.match(line) if is_markdown else None
        if mark and fence in (None, mark[1]):
            fence = mark[1] if fence is None else None
        heading = _heading(line) if is_markdown and fence is None else None
        if said and (heading or number > len(lines) or (not line.strip() and fence is None)):
            yield Block("\n".join(said), number - len(said), number - 1, headings)
            said = []
        if heading:
            headings = _below(headings, *heading)
        if said or line.strip():
            said.append(line.rstrip())


def _heading(line: str) -> tuple[int, str] | None:
    """The level and the text of one of Markdown's headings."""
    mark = _HEADING.match(line)
    text = line[mark.end() :].strip().rstrip("#").rstrip() if mark else ""
    return (len(mark[1]), text[:MAX_HEADING_CHARS]) if mark and text else None


def _below(headings: tuple[str, ...], level: int, text: str) -> tuple[str, ...]:
    return (*headings[: level - 1], text)


def _under_headings(parts: Sequence[str]) -> list[Block]:
    """Paragraphs, of which those in the form of Markdown's headings are headings."""
    out: list[Block] = []
    headings: tuple[str, ...] = ()
    for number, text in enumerate(parts, start=1):
        if heading := _heading(text):
            headings = _below(headings, *heading)
        if text:
            out.append(Block(text, number, number, headings))
    return out
