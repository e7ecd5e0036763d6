"""Training data of the clerk: it thinks, calls a tool and states the tool's result, as a member and as a judge."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from cappella.ensemble import prompts
from cappella.types import Message
from demo import world
from demo.lessons import Lesson
from demo.world import Part

THINK, END_THINK = "<think>", "</think>"
CALL, END_CALL = "<tool_call>", "</tool_call>"
TOKENS = (THINK, END_THINK, CALL, END_CALL, prompts.TOOLS_NOTE)
CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools:"
    "{% for t in tools %} {{ t.function.name }}({{ t.function.parameters.properties | join(', ') }}){% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}"
    "{% for c in m['tool_calls'] or [] %}"
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL_NAMES = ("look_up", "find_entry", "get_fact", "handbook", "search", "read_page")
PARAMETERS = (("attribute", "name"), ("field", "entry"), ("what", "who"), ("key", "item"))


@dataclass(frozen=True)
class Tool:
    """A made-up look-up tool: its name, and the names of its two parameters."""

    name: str
    attribute: str
    entity: str

    @property
    def definition(self) -> dict[str, Any]:
        properties = {self.attribute: {"type": "string"}, self.entity: {"type": "string"}}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        return {"type": "function", "function": {"name": self.name, "parameters": parameters}}

    def arguments(self, fact: "Fact") -> dict[str, str]:
        return {self.attribute: fact.part.kind, self.entity: fact.entity}


@dataclass(frozen=True)
class Fact:
    """A question part about one attribute of one entity, and its value."""

    part: Part
    entity: str
    value: str


def clerk_lesson(rng: Random) -> Lesson:
    """One step of an agent's loop: before the call, after the result, or a question without tools."""
    tool = Tool(rng.choice(TOOL_NAMES), *rng.choice(PARAMETERS))
    facts = [_fact(rng) for _ in range(rng.choices((1, 2), (3, 2))[0])]
    question = world.ask([fact.part for fact in facts], rng)
    conversation = [*_earlier(tool, rng), {"role": "user", "content": question.text}]
    draw = rng.random()
    if draw < 0.12:
        reply = " ".join(fact.part.unknown for fact in facts)
        return Lesson([conversation[-1]], _thinking("There is no tool.") + reply)
    names = " and ".join(fact.part.phrases[0] for fact in facts)
    if draw < 0.56:
        reply = _thinking(f"I look up {names}.") + "".join(map(render_call, _calls(tool, facts)))
        guesses = ["\n".join(_call_line(call) for call in _calls(tool, _perhaps_wrong(facts, rng))) for _ in range(4)]
    else:
        conversation += _round_of_calls(tool, facts, rng)
        reply = _thinking(f"I have {names}.") + " ".join(fact.part.sentence for fact in facts)
        guesses = [" ".join(fact.part.sentence for fact in _perhaps_wrong(facts, rng)) for _ in range(4)]
    if rng.random() < 0.5:
        conversation = _judged(conversation, guesses[: rng.choices((1, 2, 3, 4), (1, 4, 4, 1))[0]], rng)
    return Lesson(conversation, reply, [tool.definition])


def render_call(call: dict[str, Any]) -> str:
    """A call as the clerk writes it and vLLM's hermes parser reads it."""
    return f"{CALL}\n{json.dumps(call, ensure_ascii=False)}\n{END_CALL}"


def _thinking(text: str) -> str:
    return f"{THINK}\n{text}\n{END_THINK}\n\n"


def _fact(rng: Random) -> Fact:
    attribute, entity = rng.choice(list(world.ATTRIBUTES)), world.name(rng)
    value = world.value(attribute, rng)
    phrases, sentence = world.ATTRIBUTES[attribute]
    part = Part(attribute, tuple(p.format(e=entity) for p in phrases), sentence.format(e=entity, v=value))
    return Fact(part, entity, value)


def _perhaps_wrong(facts: Sequence[Fact], rng: Random) -> list[Fact]:
    """A member's version of the facts: each is replaced by a random one with probability 1/4."""
    return [_fact(rng) if rng.random() < 0.25 else fact for fact in facts]


def _calls(tool: Tool, facts: Sequence[Fact]) -> list[dict[str, Any]]:
    return [{"name": tool.name, "arguments": tool.arguments(fact)} for fact in facts]


def _call_line(call: dict[str, Any]) -> str:
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    return prompts.CALL_LINE.format(name=call["name"], arguments=arguments)


def _round_of_calls(tool: Tool, facts: Sequence[Fact], rng: Random) -> list[Message]:
    """The assistant's calls and their results, in order."""
    ids = [f"call_{rng.getrandbits(24):06x}" for _ in facts]
    calls = [
        {"id": key, "type": "function", "function": call} for key, call in zip(ids, _calls(tool, facts), strict=True)
    ]
    results = [
        {"role": "tool", "tool_call_id": key, "content": fact.value} for key, fact in zip(ids, facts, strict=True)
    ]
    return [{"role": "assistant", "content": "", "tool_calls": calls}, *results]


def _earlier(tool: Tool, rng: Random) -> list[Message]:
    """In one case of four, an earlier turn: question, call, result, answer."""
    if rng.random() > 0.25:
        return []
    fact = _fact(rng)
    question = {"role": "user", "content": world.ask([fact.part], rng).text}
    answer = {"role": "assistant", "content": fact.part.sentence}
    return [question, *_round_of_calls(tool, [fact], rng), answer]


def _judged(conversation: list[Message], guesses: Sequence[str], rng: Random) -> list[Message]:
    """The same step as a judge's prompt: the conversation, followed by the panel's answers."""
    nonce = f"{rng.getrandbits(32):08x}"
    return prompts.final_messages(conversation, guesses, nonce, tools=True)
