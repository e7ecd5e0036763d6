"""Program that reads the text of one document, under limits of its own: `reading.py` says how it is run, in a process for each.

Arguments: bytes of memory, seconds of CPU, pages and characters at most; then `html` for a web page, which does not say by its
first bytes what it is. The document is on standard input; one line of JSON goes to standard output. It imports nothing of this
package, so that it starts with an empty environment.
"""

import json
import resource
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

ENCRYPTED = "encrypted"
BROKEN = "broken"
TOO_COMPLEX = "too_complex"
UNABLE = "unable"
"""A library is missing: that is no fault of the document."""
PDF, DOCX = b"%PDF-", b"PK\x03\x04"
HEAD_BYTES = 1024
"""Where a PDF's mark may stand."""
MAX_COLUMNS = 63
BETWEEN = "\n\n"
W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
PARAGRAPH, TABLE, ROW, CELL, TEXT_BOX = (W + name for name in ("p", "tbl", "tr", "tc", "txbxContent"))
TEXTS = {W + "t", "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"}
SIGNS = {W + "tab": "\t", W + "ptab": "\t", W + "br": "\n", W + "cr": "\n", W + "noBreakHyphen": "-"}
NOTES = {"footnotes": "", "endnotes": "e"}
NOTE_MARKS = {W + "footnoteReference": "footnotes", W + "endnoteReference": "endnotes"}
UNSEEN = {W + name for name in ("del", "moveFrom", "pPr", "rPr", "sdtPr", "rt")}
UNSEEN.add("{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback")
"""Deleted text, properties, pronunciations, and text boxes once more for old programs."""

HTML_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
HTML_CELLS = {"td", "th"}
NO_TEXT = {"head", "script", "style", "template", "noscript", "svg", "iframe", "object"}
INLINE = set(
    "a abbr b bdi bdo cite code data del dfn em font i img input ins kbd label mark q s samp small span strong sub sup time tt u var wbr".split()
)
"""Elements that begin no paragraph."""


def main() -> None:
    memory_bytes, cpu_s, pages, chars = (int(each) for each in sys.argv[1:5])
    confine(memory_bytes, cpu_s)
    try:
        data = sys.stdin.buffer.read()
        found = json.dumps(read_html(data, chars) if sys.argv[5:] == ["html"] else read(data, pages, chars))
    except (MemoryError, RecursionError):
        found = json.dumps({"problem": TOO_COMPLEX})
    except ImportError as error:
        found = json.dumps({"problem": UNABLE, "reason": repr(error)})
    except Exception as error:  # noqa: BLE001 - the libraries raise many for what is not well-formed
        # Without its words, which may quote the document.
        at = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__} in {Path(at.filename).name}, line {at.lineno}"
        found = json.dumps({"problem": BROKEN, "reason": reason})
    print(found)


def confine(memory_bytes: int, cpu_s: int) -> None:
    """Limit this process: a document may be made to cost far more than it shows.

    Where the machine has too little memory, the kernel shall end this process, not an engine.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    limits = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, most in limits:
        resource.setrlimit(kind, (most, most))


def read(data: bytes, pages: int, chars: int) -> dict[str, Any]:
    """The text, the `ends` of its pages or paragraphs in it, the pages; `problem` instead where there is none to be had."""
    if PDF in data[:HEAD_BYTES]:
        return read_pdf(data, pages, chars)
    if data.startswith(DOCX):
        text, ends, is_cut = joined(docx_blocks(data), chars)
        return {"text": text, "ends": ends, "pages": None, "all_pages": None, "cut": is_cut}
    return {"problem": BROKEN}


def read_pdf(data: bytes, pages: int, chars: int) -> dict[str, Any]:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    try:
        reader = PdfReader(BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"problem": ENCRYPTED}
    except DependencyError:
        # Its cipher needs a library that is no dependency of ours.
        return {"problem": ENCRYPTED}
    count = len(reader.pages)
    text, ends, is_cut = joined((reader.pages[at].extract_text() for at in range(min(count, pages))), chars)
    return {"text": text, "ends": ends, "pages": len(ends), "all_pages": count, "cut": is_cut or count > pages}


def read_html(data: bytes, chars: int) -> dict[str, Any]:
    from lxml import html
    from lxml.etree import ParserError

    try:
        # Without an encoding of its own it is UTF-8 here, else what the page says it is.
        parser = html.HTMLParser(encoding=None if b"charset" in data[:HEAD_BYTES].lower() else "utf-8")
        page = html.document_fromstring(data, parser=parser)
    except ParserError:
        return {"text": "", "ends": [], "cut": False, "title": ""}
    text, ends, is_cut = joined(html_blocks(page), chars)
    title = " ".join((page.findtext(".//title") or "").split())
    return {"text": text, "ends": ends, "cut": is_cut, "title": encodable(title)}


def html_blocks(page: Any) -> Iterator[str]:
    """Paragraphs, headings and rows in order, headings in Markdown."""
    said: list[str] = []
    for text, mark in (*html_texts(page), ("", "")):
        if mark is not None:
            block = " ".join("".join(said).split()).strip(" |")
            if block.strip("#"):
                yield block
            said = [mark]
        said.append(text)


def html_texts(page: Any) -> Iterator[tuple[str, str | None]]:
    """The pieces of text; with each that begins a block, what is written before it."""
    from lxml import etree

    walk = etree.iterwalk(page, events=("start", "end", "comment", "pi"))
    for event, element in walk:
        tag = element.tag if isinstance(element.tag, str) else ""
        if event == "start" and tag in NO_TEXT:
            walk.skip_subtree()
        elif event == "start":
            mark = "#" * int(tag[1]) + " " if tag in HTML_HEADINGS else ""
            yield element.text or "", mark if tag not in INLINE and tag not in HTML_CELLS else None
        else:
            cell = " | " if tag in HTML_CELLS else ""
            yield cell + (element.tail or ""), "" if tag and tag not in INLINE and tag not in HTML_CELLS else None


def docx_blocks(data: bytes) -> Iterator[str]:
    """Paragraphs, headings, tables and notes in order, in Markdown, with tracked changes as if they were accepted."""
    from docx import Document
    from docx.text.paragraph import Paragraph

    document = Document(BytesIO(data))
    for block in blocks(document.element.body):
        if block.tag == TABLE:
            yield table_text(block)
        elif text := inline_text(block).strip():
            style = Paragraph(block, document).style
            name = style.name if style is not None and style.name else ""
            level = name.removeprefix("Heading ")
            yield f"{'#' * int(level)} {text}" if level != name and level.isdigit() else text
    yield from docx_notes(document.part)


def docx_notes(part: Any) -> Iterator[str]:
    from docx.oxml.parser import parse_xml

    for each in part.rels.values():
        prefix = NOTES.get(each.reltype.rpartition("/")[2])
        for note in parse_xml(each.target_part.blob) if prefix is not None else ():
            if text := content_text(note).strip():
                yield f"[^{prefix}{note.get(W + 'id')}]: {text}"


def blocks(element: Any) -> Iterator[Any]:
    """The paragraphs and tables in an element, whatever they are wrapped in."""
    for child in element:
        if child.tag in (PARAGRAPH, TABLE):
            yield child
        elif child.tag not in UNSEEN:
            yield from blocks(child)


def content_text(element: Any) -> str:
    """The paragraphs and tables of a cell, a text box or a note."""
    return "\n".join(table_text(each) if each.tag == TABLE else inline_text(each) for each in blocks(element))


def table_text(table: Any) -> str:
    return "\n".join(" | ".join(row_cells(row)) for row in wrapped(table, ROW))


def row_cells(row: Any) -> Iterator[str]:
    """The text of each column; a cell over several columns fills the first of them."""
    for cell in wrapped(row, CELL):
        yield content_text(cell).strip()
        span = cell.find(f"{W}tcPr/{W}gridSpan")
        yield from [""] * (min(int(span.get(W + "val")), MAX_COLUMNS) - 1 if span is not None else 0)


def wrapped(element: Any, tag: str) -> Iterator[Any]:
    """The rows of a table or the cells of a row, also in content controls; not those of tables in them."""
    for child in element:
        if child.tag == tag:
            yield child
        elif child.tag not in UNSEEN:
            yield from wrapped(child, tag)


def inline_text(element: Any) -> str:
    """The text of a paragraph, or of a part of one."""
    return "".join(pieces(element))


def pieces(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag in TEXTS:
            yield child.text or ""
        elif child.tag == TEXT_BOX:
            yield f"\n{content_text(child)}\n"
        elif child.tag in NOTE_MARKS:
            yield f"[^{NOTES[NOTE_MARKS[child.tag]]}{child.get(W + 'id')}]"
        elif child.tag in SIGNS:
            yield SIGNS[child.tag]
        elif child.tag not in UNSEEN:
            yield from pieces(child)


def joined(texts: Iterable[str], chars: int) -> tuple[str, list[int], bool]:
    """The texts together, at most so many characters; where each of them ends, and whether something was cut off."""
    kept: list[str] = []
    left = chars
    for text in texts:
        if left <= 0:
            return BETWEEN.join(kept), ends_of(kept), True
        kept.append(encodable(text[:left]).strip())
        left -= len(text)
    return BETWEEN.join(kept), ends_of(kept), left < 0


def ends_of(texts: list[str]) -> list[int]:
    return [end - len(BETWEEN) for end in accumulate(len(text) + len(BETWEEN) for text in texts)]


def encodable(text: str) -> str:
    """The text with pairs of surrogates joined; a half alone, which no encoding takes, is U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


if __name__ == "__main__":
    main()
