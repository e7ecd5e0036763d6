"""Text from models, made safe and fitted for a terminal."""

from rich.console import Console
from rich.text import Text

# Every control character but the end of a line is shown as its picture: a model may write what moves the cursor,
# renames the window or fills the clipboard.
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A, 0x0D)}
_SAFE = {**_PICTURES, 0x09: "    ", 0x0D: "", 0x7F: "␡", **dict.fromkeys(range(0x80, 0xA0), "�")}


def safe(text: str) -> str:
    """The text without control characters."""
    return text.translate(_SAFE)


def tail(console: Console, text: str, width: int, lines: int) -> Text:
    """The last lines of a text, wrapped at this width."""
    if lines < 1:
        return Text()
    # A line holds at most `width` characters, and wrapping seldom leaves more than half of it empty.
    wrapped = Text(safe(text[-2 * width * (lines + 1) :]).strip("\n")).wrap(console, width)
    return Text("\n").join(wrapped[-lines:])


def clipped(text: str, width: int) -> str:
    """The first line, shortened with an ellipsis."""
    line = safe(text).strip().split("\n", 1)[0]
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"
