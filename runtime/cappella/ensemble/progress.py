"""Tells a run's progress as text, for clients that show it as a model's reasoning: who was asked, who said what, what differs."""

import re
from collections.abc import Iterator, Sequence

from cappella.ensemble import events
from cappella.ensemble.run import Analysis, Answer
from cappella.types import Message

_BEGIN = "**Panel:** "
_END = "---\n\n"
"""Between the progress and the reasoning of the answer itself; what members say is quoted, so that no line of it is this."""
_TOLD = re.compile(rf"\A\s*{re.escape(_BEGIN)}.*?(?:^---\s*|\Z)", re.DOTALL | re.MULTILINE)


class Progress:
    """An `Emit` that adds `Told` events to those of a run, until its answer begins; `text` is all that was told.

    A member's answer is told as a whole when it has ended: members that answer at once would mix word by word.
    """

    def __init__(self, emit: events.Emit) -> None:
        self.text = ""
        self._emit = emit
        self._panel: Sequence[str] = ()
        self._judge = ""
        self._is_answering = self._is_ended = False

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.FinalDelta):
            self._is_answering = True
            if self.text and event.chunk.reasoning and not self._is_ended:
                # Not always at the answer's begin: one that breaks off is followed by a member's, with its reasoning.
                self._is_ended = True
                self._tell(_END)
        self._emit(event)
        if not self._is_answering:
            for text in self._texts(event):
                self._tell(text)

    def _tell(self, text: str) -> None:
        self.text += text
        self._emit(events.Told(text))

    def _texts(self, event: events.Event) -> Iterator[str]:
        match event:
            case events.RunStarted():
                self._panel, self._judge = event.panel, event.judge or ""
                if not event.gated:
                    yield _asked(event.panel)
            case events.Gated():
                alone = f"{_BEGIN}not asked; {event.decision.model} answers alone: {event.decision.reason}.\n\n"
                yield alone if event.decision.bypass else _asked(self._panel)
            case events.RoundStarted():
                yield f"**Round {event.number}:** the members read each other's answers.\n\n"
            case events.Waiting(reason="asleep"):
                yield f"**{event.name}** was asleep, and wakes.\n\n"
            case events.Waiting():
                yield f"**{event.name}** waits for its turn.\n\n"
            case events.GraceStarted():
                late, grace_s = ", ".join(event.names), round(event.grace_s)
                yield f"Enough members have answered. In {grace_s} s the answer is given without {late}.\n\n"
            case events.ToolReturned() if event.use.server is None:
                yield f"**{event.use.seat}** asked for a call that cannot be made.\n\n"
            case events.ToolReturned():
                failed = ", which failed" if event.use.is_error else ""
                yield f"**{event.use.seat}** called {event.use.tool}{failed}.\n\n"
            case events.AnswerDone():
                yield _said(event.answer)
            case events.AnswerFailed():
                yield f"**{event.failure.name}** gave no answer: {event.failure.reason.replace('_', ' ')}\n\n"
            case events.Reviewed():
                yield f"The members' ranking: {', '.join(event.ranking)}.\n\n"
            case events.AnalysisStarted():
                yield f"**{self._judge}** compares the answers.\n\n"
            case events.AnalysisDone():
                yield "".join(f"- {_line(point)}\n" for point in _points(event.analysis)) + "\n"


def without_progress(messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation without the progress of earlier runs, which clients send back as an answer's reasoning."""
    if not any(_is_told(message) for message in messages):
        return messages
    return [_forgotten(message) if _is_told(message) else message for message in messages]


def _is_told(message: Message) -> bool:
    reasoning = message.get("reasoning")
    return isinstance(reasoning, str) and _TOLD.match(reasoning) is not None


def _forgotten(message: Message) -> Message:
    own = _TOLD.sub("", message["reasoning"], count=1)
    rest = {name: value for name, value in message.items() if name != "reasoning"}
    return {**rest, "reasoning": own} if own else rest


def _asked(panel: Sequence[str]) -> str:
    return f"{_BEGIN}{', '.join(panel)}\n\n"


def _said(answer: Answer) -> str:
    """A whole answer as a quotation; a call of a tool is told by its name and arguments."""
    calls = [f"{call.name}({call.arguments})" for call in answer.tool_calls]
    lines = "\n".join([*([answer.content] if answer.content.strip() else []), *calls]).splitlines()
    quoted = "\n".join(f"> {line}".rstrip() for line in lines)
    return f"**{answer.name}:**\n\n{quoted}\n\n"


def _points(analysis: Analysis) -> Iterator[str]:
    for point in analysis["consensus"]:
        yield f"All agree: {point}"
    for each in analysis["contradictions"]:
        stances = "; ".join(f"{one['model']}: {one['stance']}" for one in each["stances"])
        yield f"They differ on {each['topic']}: {stances}"
    for each in analysis["unique_insights"]:
        yield f"Only {each['model']} says: {each['insight']}"
    for each in analysis["partial_coverage"]:
        yield f"Only {', '.join(each['models'])} say: {each['point']}"
    for point in analysis["blind_spots"]:
        yield f"Nobody covers: {point}"


def _line(text: str) -> str:
    return " ".join(text.split())
