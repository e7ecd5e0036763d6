"""One round of a panel. In a later one, the members also read the answers of the round before."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.events import Emit
from cappella.ensemble.messages import for_member
from cappella.ensemble.panel import Question, WaitPolicy, ask_panel
from cappella.ensemble.run import Answer, Panel
from cappella.types import Message, Prompt


async def ask_round(
    engines: Mapping[str, Engine],
    prompt: Prompt,
    settings: Settings,
    before: Sequence[Answer],
    patience: WaitPolicy,
    emit: Emit,
    verbatim: bool,
) -> Panel:
    """Every seat's answer to the prompt and to the answers `before`, if there are any. For `verbatim` see `for_member`."""
    questions = []
    for seat in settings.panel:
        engine = engines[seat.model]
        asked = for_member(prompt, seat, engine.capabilities, settings, verbatim)
        if before:
            asked = replace(asked, messages=_layered(asked.messages, before, settings, bool(prompt.tools)))
        questions.append(Question(seat, engine, asked))
    return await ask_panel(questions, patience, emit)


def _layered(
    messages: Sequence[Message], before: Sequence[Answer], settings: Settings, tools: bool
) -> Sequence[Message]:
    """As the judge's prompt: answers in a shuffled order, fenced, behind the conversation."""
    shown = Candidates.shuffled(before, settings.seed)
    return prompts.final_messages(messages, shown.texts, shown.nonce, criteria=settings.criteria, tools=tools)
