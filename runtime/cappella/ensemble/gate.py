"""Decides whether one model can answer a simple request alone, without the panel. The trace records the decision."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

from cappella.config.options import Gate
from cappella.engines import waiting
from cappella.ensemble import prompts
from cappella.ensemble.between import extend
from cappella.ensemble.call import EngineCall
from cappella.ensemble.choice import CHOICE_TOKENS
from cappella.ensemble.context import RunContext
from cappella.ensemble.events import FinalDelta, Gated
from cappella.ensemble.messages import has_images
from cappella.ensemble.run import Answer, GateDecision
from cappella.ensemble.token_limits import short_sampling
from cappella.errors import EngineBroke, EngineError
from cappella.types import OutputFormat, Prompt, Sampling

DECISION_TIMEOUT_S = 30.0
SHORTCUT_SHARE = 0.25
"""The share of the remaining time that a check may take whose answer only saves work, so that the work still fits."""


async def bypass(ctx: RunContext) -> Answer | None:
    """The answer of the gate's model if the gate decides to bypass the panel, and the model gives one; else None.

    Sets `ctx.gate`. Raises EngineBroke if the model failed after part of its answer was sent.
    """
    if ctx.settings.gate is None:
        return None
    ctx.gate = await _decide(ctx, ctx.settings.gate)
    ctx.emit(Gated(ctx.gate))
    return await _ask_alone(ctx, ctx.gate, _prompt_alone(ctx, ctx.settings.gate)) if ctx.gate.bypass else None


async def _decide(ctx: RunContext, gate: Gate) -> GateDecision:
    """Decide by rules or by one word of the judge or of another model. In doubt the panel is asked."""
    if reason := _panel_required(ctx, gate):
        return GateDecision(False, gate.model, reason)
    if gate.mode == "tools":
        return GateDecision(True, gate.model, "the judge goes on from the results of tools (tools_panel: judge)")
    if gate.mode == "rules":
        return _by_rules(gate, ctx.prompt)
    decider = gate.decider or ctx.settings.judge
    judge, call = ctx.engines[decider], EngineCall("gate", decider)
    who = gate.decider or "the judge"
    question = extend(ctx.judge_prompt.messages, [prompts.GATE])
    output_format = OutputFormat("structured_outputs", {"choice": ["yes", "no"]})
    sampling = short_sampling(Sampling(temperature=0.0), judge.capabilities, CHOICE_TOKENS)
    try:
        async with waiting.timeout(min(DECISION_TIMEOUT_S, SHORTCUT_SHARE * ctx.settings.deadline_s)):
            prompt = Prompt(question, output_format=output_format, watched=False)
            reply = await call.complete(judge, prompt, sampling)
    except (EngineError, TimeoutError) as error:
        return GateDecision(False, gate.model, f"{who} did not decide: {str(error) or 'timeout'}")
    finally:
        ctx.gate_calls += [call.record] if call.was_called else []
    needed = reply.strip() != "no"
    return GateDecision(not needed, gate.model, f"{who} decided that {'several are' if needed else 'one is'} better")


async def _ask_alone(ctx: RunContext, decision: GateDecision, prompt: Prompt) -> Answer | None:
    """Stream one model's answer; None if it failed before it sent anything, so that the panel answers instead."""
    engine, call = (
        ctx.engines[decision.model],
        EngineCall("single", decision.model, citations=ctx.citations.of_call(prompt.output_format)),
    )
    try:
        async with (
            asyncio.timeout(ctx.deadline.remaining_s),
            aclosing(call.stream(engine, prompt, ctx.settings.judge_sampling)) as chunks,
        ):
            async for chunk in chunks:
                if chunk.content or chunk.reasoning or chunk.tool_calls or chunk.logprobs:
                    ctx.emit(FinalDelta(chunk.without_end(), ctx.citations.take()))
        if unusable := call.completions[0].error(decision.model):
            raise unusable
    except (EngineError, TimeoutError) as error:
        cause = str(error) or "deadline"
        # Thoughts stand beside an answer, so that another one may follow them.
        if call.completions[0].has_answer:
            raise EngineBroke(f"{decision.model} failed in the middle of its answer: {cause}") from error
        ctx.gate = replace(decision, bypass=False, reason=f"{decision.model} failed: {cause}")
        ctx.emit(Gated(ctx.gate))
        return None
    finally:
        ctx.gate_calls += [call.record] if call.was_called else []
    return call.completions[0].answer(decision.model, call.record)


def _prompt_alone(ctx: RunContext, gate: Gate) -> Prompt:
    """The prompt of the gate's model. The judge that goes on from tools gets what it has read before: that is in its cache."""
    if gate.mode == "tools":
        return ctx.judge_prompt
    effort = ctx.prompt.reasoning_effort if ctx.engines[gate.model].capabilities.reasoning else None
    return replace(ctx.prompt, reasoning_effort=effort)


def _panel_required(ctx: RunContext, gate: Gate) -> str | None:
    """A reason to ask the panel whatever the gate would decide; None if there is none."""
    if not ctx.engines[gate.model].status.accepts_requests:
        return f"{gate.model} is not ready"
    if gate.mode == "tools":
        return None
    if ctx.prompt.tools:
        return "the request has tools"
    if has_images(ctx.prompt.messages):
        return "the request has images"
    return None


def _by_rules(gate: Gate, prompt: Prompt) -> GateDecision:
    """Bypass the panel for a conversation of one short message without an output format."""
    turns = [message for message in prompt.messages if message["role"] != "system"]
    if len(turns) > 1:
        return GateDecision(False, gate.model, f"the conversation has {len(turns)} turns")
    if prompt.output_format is not None:
        return GateDecision(False, gate.model, "the request sets an output format")
    # The rest of a long text is not read.
    words = len(prompts.text_of(turns[-1]).split(maxsplit=gate.max_words)) if turns else 0
    bypass = words <= gate.max_words
    said = f"{words} words" if bypass else f"more than {gate.max_words} words"
    return GateDecision(bypass, gate.model, f"{said}; {gate.model} alone answers up to {gate.max_words}")
