"""Program that reads the text of one document, under limits of its own: `documents.py` runs it, in a process for each.

Arguments: bytes of memory, seconds of CPU, pages and characters at most. The document is on standard input; one line of JSON goes
to standard output. For what is not well-formed the libraries raise errors of many kinds: it ends with one. It imports nothing of this package, so that it starts with an empty environment.
"""

import json
import resource
import sys
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

ENCRYPTED = "encrypted"
BROKEN = "broken"
TOO_COMPLEX = "too_complex"
PDF, DOCX = b"%PDF-", b"PK\x03\x04"
HEAD_BYTES = 1024
"""Where a PDF's mark may stand."""


def main() -> None:
    memory_bytes, cpu_s, pages, chars = (int(each) for each in sys.argv[1:])
    confine(memory_bytes, cpu_s)
    try:
        found = read(sys.stdin.buffer.read(), pages, chars)
    except MemoryError:
        found = {"problem": TOO_COMPLEX}
    print(json.dumps(found))


def confine(memory_bytes: int, cpu_s: int) -> None:
    """Limit this process: a document may be made to cost far more than it shows."""
    limits = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, most in limits:
        resource.setrlimit(kind, (most, most))


def read(data: bytes, pages: int, chars: int) -> dict[str, Any]:
    """The text with its pages; `problem` instead where there is none to be had."""
    if PDF in data[:HEAD_BYTES]:
        return read_pdf(data, pages, chars)
    if data.startswith(DOCX):
        text, _, is_cut = joined(docx_blocks(data), chars)
        return {"text": text, "pages": None, "all_pages": None, "cut": is_cut}
    return {"problem": BROKEN}


def read_pdf(data: bytes, pages: int, chars: int) -> dict[str, Any]:
    from pypdf import PdfReader

    reader = PdfReader(BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        return {"problem": ENCRYPTED}
    count = len(reader.pages)
    text, read_pages, is_cut = joined((reader.pages[at].extract_text() for at in range(min(count, pages))), chars)
    return {"text": text, "pages": read_pages, "all_pages": count, "cut": is_cut or count > pages}


def docx_blocks(data: bytes) -> Iterator[str]:
    """Paragraphs, headings and tables in order, in Markdown."""
    from docx import Document
    from docx.table import Table

    for block in Document(BytesIO(data)).iter_inner_content():
        if isinstance(block, Table):
            yield "\n".join(" | ".join(cell.text.strip() for cell in row.cells) for row in block.rows)
        elif text := block.text.strip():
            style = block.style.name if block.style is not None and block.style.name else ""
            level = style.removeprefix("Heading ")
            yield f"{'#' * int(level)} {text}" if level != style and level.isdigit() else text


def joined(texts: Iterable[str], chars: int) -> tuple[str, int, bool]:
    """The texts together, at most so many characters; how many of them there are, and whether something was cut off."""
    kept: list[str] = []
    left = chars
    for text in texts:
        if left <= 0:
            return "\n\n".join(kept), len(kept), True
        kept.append(text[:left].strip())
        left -= len(text)
    return "\n\n".join(kept), len(kept), left < 0


if __name__ == "__main__":
    main()
