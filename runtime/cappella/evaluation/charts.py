"""The plots of a report as inline SVG: accuracies with their intervals, accuracy over tokens, chosen letters."""

from collections.abc import Sequence
from html import escape
from math import log10

from cappella.evaluation.findings import Line
from cappella.evaluation.judging import Choices

WIDTH, ROW, LEFT, RIGHT = 760, 24, 220, 70
PLOT = WIDTH - LEFT - RIGHT
HEIGHT = 300


def accuracies(lines: Sequence[Line]) -> str:
    """One line for each way: a dot, and its 95% interval."""
    parts = [_scale(len(lines) * ROW)]
    for number, line in enumerate(lines):
        y = number * ROW + ROW / 2
        low, mean, high = (LEFT + PLOT * share for share in (line.accuracy.low, line.accuracy.mean, line.accuracy.high))
        parts.append(_text(LEFT - 10, y, line.name, "end"))
        parts.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" class="bar"/>')
        parts.append(f'<circle cx="{mean:.1f}" cy="{y}" r="5" class="{line.kind}"/>')
        parts.append(_text(WIDTH - RIGHT + 10, y, f"{100 * line.accuracy.mean:.1f}%"))
    return _svg(len(lines) * ROW + 24, "Right answers by way, with 95% intervals", parts)


def cost(lines: Sequence[Line]) -> str:
    """Accuracy over tokens per question, on a logarithmic axis."""
    shown = [line for line in lines if line.tokens > 0]
    if len(shown) < 2:
        return ""
    low, high = (log10(pick(line.tokens for line in shown)) for pick in (min, max))
    span = (high - low) or 1.0
    parts = [f'<rect x="60" y="10" width="{WIDTH - 120}" height="{HEIGHT - 50}" class="frame"/>']
    parts += [_text(52, HEIGHT - 40 - (HEIGHT - 50) * each / 100, f"{each}%", "end") for each in (0, 50, 100)]
    for line in shown:
        x = 80 + (WIDTH - 260) * (log10(line.tokens) - low) / span
        y = HEIGHT - 40 - (HEIGHT - 50) * line.accuracy.mean
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="{line.kind}"/>')
        parts.append(_text(x + 8, y, f"{line.name}, {line.tokens:.0f}"))
    parts.append(_text(WIDTH / 2, HEIGHT - 12, "tokens per question, read and written (logarithmic)", "middle"))
    return _svg(HEIGHT, "Right answers over tokens per question", parts)


def letters(choices: Choices) -> str:
    """How often the answer under each letter was chosen, beside how often it was right."""
    parts = []
    for number, place in enumerate(choices.places):
        y, shown = number * 2 * ROW + ROW / 2, place.shown or 1
        parts.append(_text(LEFT - 10, y + ROW / 2, f"answer {place.letter}", "end"))
        for offset, count, word in ((0, place.chosen, "chosen"), (ROW * 0.8, place.right, "right")):
            width = PLOT * count / shown
            parts.append(f'<rect x="{LEFT}" y="{y + offset - 8}" width="{width:.1f}" height="14" class="{word}"/>')
            parts.append(_text(LEFT + width + 6, y + offset, f"{word} {count} of {place.shown}"))
    return _svg(len(choices.places) * 2 * ROW + 10, f"{choices.way}: chosen answers by letter", parts)


def _scale(height: float) -> str:
    marks = []
    for percent in (0, 25, 50, 75, 100):
        x = LEFT + PLOT * percent / 100
        marks.append(f'<line x1="{x}" x2="{x}" y1="0" y2="{height}" class="grid"/>')
        marks.append(_text(x, height + 14, f"{percent}%", "middle"))
    return "".join(marks)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>"
