"""Whether a request needs the panel at all. What is passed by, and why, is in the trace."""

import asyncio
from collections.abc import Mapping

from cappella.config.options import Gate
from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.call import EngineCall
from cappella.ensemble.choice import CHOICE_TOKENS, brief
from cappella.ensemble.messages import for_judge, has_images
from cappella.ensemble.run import GateDecision
from cappella.errors import EngineError
from cappella.types import Form, Prompt, Sampling

DECISION_TIMEOUT_S = 30.0


async def decide(
    gate: Gate, judge: str, engines: Mapping[str, Engine], prompt: Prompt, voice: EngineCall, timeout_s: float
) -> GateDecision:
    """By rules or by one word of the judge, heard through `voice`. Whatever is in doubt goes to the panel."""
    if blocked := _needs_panel(gate, engines, prompt):
        return GateDecision(False, gate.model, blocked)
    if gate.mode == "rules":
        return _by_rules(gate, prompt)
    question = prompts.extend(for_judge(prompt, engines[judge].capabilities).messages, [prompts.GATE])
    form = Form("structured_outputs", {"choice": ["yes", "no"]})
    sampling = brief(Sampling(temperature=0.0), engines[judge].capabilities, CHOICE_TOKENS)
    try:
        async with asyncio.timeout(min(DECISION_TIMEOUT_S, timeout_s)):
            said = await voice.say(engines[judge], Prompt(question, form=form, watched=False), sampling)
    except (EngineError, TimeoutError) as error:
        return GateDecision(False, gate.model, f"the judge did not say: {str(error) or 'too late'}")
    needed = said.strip() != "no"
    return GateDecision(not needed, gate.model, f"the judge says that {'several are' if needed else 'one is'} better")


def _needs_panel(gate: Gate, engines: Mapping[str, Engine], prompt: Prompt) -> str | None:
    """A reason that no gate overrules."""
    if not engines[gate.model].status.accepts_requests:
        return f"{gate.model} is not ready"
    if prompt.tools:
        return "the request has tools"
    if has_images(prompt.messages):
        return "the request has images"
    return None


def _by_rules(gate: Gate, prompt: Prompt) -> GateDecision:
    """Trivial is one plain turn of a few words."""
    turns = [message for message in prompt.messages if message["role"] != "system"]
    if len(turns) > 1:
        return GateDecision(False, gate.model, f"the conversation has {len(turns)} turns")
    if prompt.form is not None:
        return GateDecision(False, gate.model, "a form is asked for")
    words = len(prompts.text_of(turns[-1]).split()) if turns else 0
    bypass = words <= gate.max_words
    return GateDecision(bypass, gate.model, f"{words} words, {gate.max_words} at the most are for {gate.model} alone")
