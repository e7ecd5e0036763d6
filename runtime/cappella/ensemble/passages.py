"""Passages as models read them, and what else strangers have written: shortened, and with nothing in it that looks like ours."""

import re

from cappella.ensemble.prompts import broken_up
from cappella.ensemble.sources import Source

MIDDLE = "\n[here {count} characters are left out: the text was too long]\n"
_HANDLE = re.compile(r"\[(?=\s*S\s*\d)", re.IGNORECASE)


def passage_text(source: Source, room_bytes: int, note: str = "") -> str:
    """A passage with its handle and place, and a note on how it was found."""
    passage = source.passage
    place = ", ".join(part for part in (f"{passage.documents}/{passage.path}", passage.place, note) if part)
    title = f" ({plain(passage.title)})" if passage.title else ""
    return f"[{source.handle}] {plain(place)}{title}: {shortened(plain(passage.text), room_bytes)}"


def shortened(text: str, room_bytes: int) -> str:
    """The text without its middle if it is longer; a mark says how much was left out."""
    written = text.encode()
    if len(written) <= room_bytes:
        return text
    half = max(room_bytes, 0) // 2
    head, tail = written[:half].decode(errors="ignore"), written[len(written) - half :].decode(errors="ignore")
    return head + MIDDLE.format(count=len(text) - len(head) - len(tail)) + tail


def plain(text: str) -> str:
    """A stranger's text: nothing in it looks like our marks and notes, nor like the handle of another passage."""
    return _HANDLE.sub("[\u200b", broken_up(text))
