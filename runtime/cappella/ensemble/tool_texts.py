"""Results of tools as a model reads them: data between marks, shortened to fit, with handles by which it cites passages."""

from collections.abc import Sequence

from cappella.engines.context_size import BYTES_PER_TOKEN
from cappella.ensemble import disagreement
from cappella.ensemble.disagreement import Disagreement, disagreements
from cappella.ensemble.fair_share import fair_share
from cappella.ensemble.passages import passage_text, plain, shortened
from cappella.ensemble.prompts import ANSWER_FROM_RESULTS, CLOSE_MARK, RESULT_MARK, RESULTS_INTRODUCTION
from cappella.ensemble.sources import Source
from cappella.ensemble.tool_run import Found

CITE = "Where you use one of these passages, cite it by its handle, as {handle}."
RELATED = "has {by}, as {handle} does"
NO_MORE = "You can make no more calls: answer now, with what you have found."
NOTHING = "(it gave nothing)"


def fenced_results(
    found: Sequence[Found], nonce: str, room_tokens: int, differing: Sequence[Disagreement] = ()
) -> list[str]:
    """Each result between its marks, and in the last what is `differing` in the passages. They share the room."""
    room = room_tokens * BYTES_PER_TOKEN
    last = disagreement.lines(differing, room)
    rooms = _rooms([_size(each) for each in found], room - len("\n".join(last).encode()))
    ends = [last if number == len(found) else [] for number in range(1, len(found) + 1)]
    return [
        _fenced(each, label, nonce, room, end)
        for each, label, room, end in zip(found, _labels(found), rooms, ends, strict=True)
    ]


def without_marks(fenced: str) -> str:
    """What stands between the marks of a fenced result."""
    return "\n".join(fenced.split("\n")[1:-1])


def result_texts(
    fenced: Sequence[str], found: Sequence[Found], nonce: str, is_last: bool, differing: Sequence[Disagreement] = ()
) -> list[str]:
    """The texts of messages with these results; after the last ones no more can be asked."""
    introduction = RESULTS_INTRODUCTION.format(nonce=nonce)
    texts = ["\n\n".join([introduction, text, *_cite(each.sources)]) for text, each in zip(fenced, found, strict=True)]
    end = [*disagreement.notes(differing), *([NO_MORE] if is_last else [])]
    return [*texts[:-1], "\n\n".join([*texts[-1:], *end])] if texts else []


def before_question(fenced: Sequence[str], sources: Sequence[Source], nonce: str) -> str:
    """All results of an answer as the beginning of the message with the question; nothing without any."""
    if not fenced:
        return ""
    told = [ANSWER_FROM_RESULTS.format(nonce=nonce), *_cite(sources), *disagreement.notes(disagreements(sources))]
    return "\n\n".join([*dict.fromkeys(fenced), " ".join(told), ""])


def _cite(sources: Sequence[Source]) -> list[str]:
    return [CITE.format(handle=f"[{sources[0].handle}]")] if sources else []


def _fenced(found: Found, label: str, nonce: str, room_bytes: int, end: Sequence[str]) -> str:
    parts = [] if found.sources and not found.result.text.strip() else [plain(found.result.text) or NOTHING]
    rooms = _rooms([len(part.encode()) for part in parts] + [_bytes(each) for each in found.sources], room_bytes)
    texts = [shortened(part, room) for part, room in zip(parts, rooms, strict=False)]
    notes = {
        each.passage: RELATED.format(by=each.by, handle=found.sources[each.to].handle)
        for each in found.result.relations
    }
    texts += [
        passage_text(source, room, notes.get(number, ""))
        for number, (source, room) in enumerate(zip(found.sources, rooms[len(parts) :], strict=True))
    ]
    if found.result.is_error:
        texts[0] = f"Error: {texts[0]}"
    mark = {"label": label, "nonce": nonce}
    return RESULT_MARK.format(**mark) + "\n".join([*texts, *end]) + CLOSE_MARK.format(**mark)


def _labels(found: Sequence[Found]) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(found)]


def _rooms(sizes: Sequence[int], room: int) -> list[int]:
    """How much each may have, so that all fit."""
    return [fair_share(sizes, room)] * len(sizes)


def _size(found: Found) -> int:
    return len(found.result.text.encode()) + sum(map(_bytes, found.sources))


def _bytes(source: Source) -> int:
    return len(source.passage.text.encode())
