"""Whether a request needs the panel at all. What is passed by, and why, is in the trace."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

from cappella.config.options import Gate
from cappella.ensemble import prompts
from cappella.ensemble.call import EngineCall
from cappella.ensemble.choice import CHOICE_TOKENS, brief
from cappella.ensemble.context import RunContext
from cappella.ensemble.events import FinalDelta, Gated
from cappella.ensemble.messages import has_images
from cappella.ensemble.run import Answer, GateDecision
from cappella.errors import EngineBroke, EngineError
from cappella.types import Form, Prompt, Sampling

DECISION_TIMEOUT_S = 30.0
SHORTCUT_SHARE = 0.25
"""Of the time there is: what a question may take whose answer only saves work, so that the work can still be done."""


async def bypass(ctx: RunContext) -> Answer | None:
    """One model's answer where the gate says that no panel is needed; else None, also if that model gave nothing.

    Sets the run's `gate`. Raises EngineBroke for a model that broke off in the middle of its answer.
    """
    if ctx.settings.gate is None:
        return None
    ctx.gate = await _decide(ctx, ctx.settings.gate)
    ctx.emit(Gated(ctx.gate))
    return await _ask_alone(ctx, ctx.gate) if ctx.gate.bypass else None


async def _decide(ctx: RunContext, gate: Gate) -> GateDecision:
    """By rules or by one word of the judge. Whatever is in doubt goes to the panel."""
    if blocked := _needs_panel(ctx, gate):
        return GateDecision(False, gate.model, blocked)
    if gate.mode == "rules":
        return _by_rules(gate, ctx.prompt)
    judge, voice = ctx.judge_engine, EngineCall("gate", ctx.settings.judge)
    question = prompts.extend(ctx.judge_prompt.messages, [prompts.GATE])
    form = Form("structured_outputs", {"choice": ["yes", "no"]})
    sampling = brief(Sampling(temperature=0.0), judge.capabilities, CHOICE_TOKENS)
    try:
        async with asyncio.timeout(min(DECISION_TIMEOUT_S, SHORTCUT_SHARE * ctx.settings.deadline_s)):
            said = await voice.say(judge, Prompt(question, form=form, watched=False), sampling)
    except (EngineError, TimeoutError) as error:
        return GateDecision(False, gate.model, f"the judge did not say: {str(error) or 'too late'}")
    finally:
        ctx.gate_calls += [voice.call] if voice.spoke else []
    needed = said.strip() != "no"
    return GateDecision(not needed, gate.model, f"the judge says that {'several are' if needed else 'one is'} better")


async def _ask_alone(ctx: RunContext, decision: GateDecision) -> Answer | None:
    """Stream one model's answer; None if it gave nothing, so that the panel has to. Raises EngineBroke."""
    engine, voice = ctx.engines[decision.model], EngineCall("single", decision.model)
    effort = ctx.prompt.reasoning_effort if engine.capabilities.reasoning else None
    prompt = replace(ctx.prompt, reasoning_effort=effort)
    try:
        async with (
            asyncio.timeout(ctx.left_s),
            aclosing(voice.speak(engine, prompt, ctx.settings.judge_sampling)) as chunks,
        ):
            async for chunk in chunks:
                if chunk.content or chunk.reasoning or chunk.logprobs:
                    ctx.emit(FinalDelta(chunk.without_end()))
        if problem := voice.takes[0].problem(decision.model):
            raise problem
    except (EngineError, TimeoutError) as error:
        why = str(error) or "deadline"
        if voice.first_token_at:
            raise EngineBroke(f"{decision.model} broke off: {why}") from error
        ctx.gate = replace(decision, bypass=False, reason=f"{decision.model} failed: {why}")
        ctx.emit(Gated(ctx.gate))
        return None
    finally:
        ctx.gate_calls += [voice.call] if voice.spoke else []
    return voice.takes[0].answer(decision.model, voice.call)


def _needs_panel(ctx: RunContext, gate: Gate) -> str | None:
    """A reason that no gate overrules."""
    if not ctx.engines[gate.model].status.accepts_requests:
        return f"{gate.model} is not ready"
    if ctx.prompt.tools:
        return "the request has tools"
    if has_images(ctx.prompt.messages):
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
