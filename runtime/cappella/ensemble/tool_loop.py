"""Looks things up: a model's calls of its own tools are made at once, it reads what they gave, and is asked again until it answers."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from cappella.engines.base import Engine
from cappella.engines.context_size import estimate_tokens
from cappella.ensemble.call import EngineCall
from cappella.ensemble.disagreement import disagreements
from cappella.ensemble.run import Answer
from cappella.ensemble.seat_tools import Tools, answering, answering_plainly
from cappella.ensemble.shares import MAX_COUNTS, SAFETY, Counter, counted
from cappella.ensemble.sources import Source
from cappella.ensemble.structured.json_value import parse_json
from cappella.ensemble.tool_run import Found
from cappella.ensemble.tool_texts import before_question, fenced_results, result_texts, without_marks
from cappella.ensemble.written_calls import may_begin_call, written_calls
from cappella.tools.base import ToolResult
from cappella.types import Json, Message, Prompt, Sampling, ToolCall

MAX_REPLY_SHARE = 0.5
DEFAULT_REPLY_SHARE = 0.25
"""Of the context, what is kept free for the answer."""
TURN_SHARE = 0.5
"""Of the rest, what the results of one turn may take: another turn may follow."""
UNKNOWN_ROOM_TOKENS = 8192
"""Where nobody knows the size of the context."""
MIN_ROOM_TOKENS = 64
CALL_TOKENS = 128
"""Of a call, and of the marks and notes around its result."""
MIN_CALL_TOKENS = CALL_TOKENS + MIN_ROOM_TOKENS
LESS = 4
MAX_ECHOED_CHARACTERS = 200
_Round = tuple[Prompt, Answer, Sequence[Found]]
"""The prompt before a round of calls, what the model said, and what its calls gave."""
TOOK_TOO_LONG = "It took too long, and was given up."


class ToolLoop:
    """What one answer, named `name`, looks up after its first turn. The `prompt` grows by what it calls and what it gets.

    `left_tokens` is the most by which it may grow in the next turn, None without a limit.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        prompt: Prompt,
        sampling: Sampling,
        tools: Tools,
        new_call: Callable[[], EngineCall],
    ) -> None:
        self.engine = engine
        self.prompt = prompt
        self.sampling = sampling
        self._name = name
        self._tools = tools
        self.new_call = new_call
        self._calls_left = tools.box.max_calls
        self._has_ended = False
        self._answered: set[tuple[str, str]] = set()
        self._last: _Round | None = None
        self._fenced: list[str] = []
        self._last_fenced: list[str] = []
        self._sources: list[Source] = []
        self._room_tokens = 0
        self._before = self._state()
        self._writes_calls = False
        self.left_tokens: int | None = None

    @property
    def names(self) -> Collection[str]:
        """The names of the tools, as the model knows them."""
        return self._tools.box.tools

    def may_be_calls(self, text: str) -> bool:
        """Whether an answer that begins with this may turn out to be calls, written as text."""
        return not self._writes_calls and may_begin_call(text, self.names)

    def has_calls_for_answer(self, text: str) -> bool:
        """Whether this answer is calls, written as text: then it is to be asked once more, plainly."""
        if self._writes_calls:
            return False
        self._writes_calls = bool(written_calls(text, self.names))
        return self._writes_calls

    @property
    def may_call(self) -> bool:
        """Whether it may call tools in its next turn."""
        return self._calls_left > 0 and not self._has_ended

    def end_calls(self) -> None:
        """Its next turn is its answer, whatever it may call until then."""
        self._has_ended = True

    async def use(self, said: Answer, *, as_text: bool, ends_at: float | None = None) -> None:
        """Make the calls in what the model said, all at once, and let the prompt grow by them and by what they gave.

        Where all of them were made and answered before, they are its last. Those that last beyond `ends_at`, on the clock of
        the event loop, are given up.
        """
        self._writes_calls |= as_text
        most = self._calls_left if self.left_tokens is None else self.left_tokens // MIN_CALL_TOKENS
        made = said.tool_calls[: min(most, self._calls_left)]
        self._calls_left -= len(made)
        if all((call.name, call.arguments) in self._answered for call in made):
            # A small model repeats itself until it may call no more.
            self.end_calls()
        found = list(await asyncio.gather(*(self._found_in_time(call, as_text, ends_at) for call in made)))
        served = (call for call, each in zip(made, found, strict=True) if not each.result.is_error)
        self._answered |= {(call.name, call.arguments) for call in served}
        self._before = self._state()
        self._fenced = [*self._fenced, *self._last_fenced]
        self._sources = [*self._sources, *(source for each in found for source in each.sources)]
        self._last, self._room_tokens = (
            (self.prompt, replace(said, tool_calls=made), found),
            self._room(said, len(made)),
        )
        self._grow()
        await counted(self.engine, self._fit)

    def _state(self) -> tuple[Prompt, _Round | None, list[str], list[str], list[Source], int]:
        """What a round of calls changes, none of it in place."""
        return self.prompt, self._last, self._fenced, self._last_fenced, self._sources, self._room_tokens

    def forget_last(self) -> None:
        """Leave out the last turn wholly, with what its calls gave: its results are too large to be read."""
        given = self._sources
        self.prompt, self._last, self._fenced, self._last_fenced, self._sources, self._room_tokens = self._before
        self._tools.run.take_back(self._name, [each for each in given if each not in self._sources])

    def refuse(self, said: Answer, why: str, *, as_text: bool) -> None:
        """Make none of the calls in what the model said, which is not told: its next turn does not hear of them."""
        self._writes_calls |= as_text
        for call in said.tool_calls[: self._calls_left]:
            self._tools.run.fail(self._name, call.name, call.arguments, why)

    def answering(self, asked: Prompt) -> Prompt:
        """The prompt for one answer, in the format that was `asked` for, of however many samples the first turn was."""
        asked, prompt = replace(asked, samples=1), replace(self.prompt, samples=1)
        if not self._writes_calls or asked.messages[-1]["role"] != "user":
            return answering(prompt, asked)
        results = before_question([*self._fenced, *self._last_fenced], self._sources, self._tools.nonce)
        return answering_plainly(asked, results)

    def shorten(self) -> bool:
        """Leave much less room to the results of the last turn, if there was one: the engine has refused the prompt as too long."""
        if self._last is None:
            return False
        self._room_tokens //= LESS
        self._grow()
        return True

    async def _fit(self, counter: Counter) -> None:
        """Shorten the results to their room as the engine counts them: of a table of digits each byte may be a token."""
        room_tokens = self._room_tokens
        notes_tokens: int | None = None
        for _ in range(MAX_COUNTS):
            whole, inside = self._results, "\n".join(map(without_marks, self._last_fenced))
            # No text has more tokens than bytes.
            if len(whole.encode()) <= room_tokens:
                return
            tokens = await counter.text(inside)
            if notes_tokens is None:
                notes_tokens = await counter.text(whole) - tokens
            # Marks and notes take of the room, but never so much that nothing could be read.
            most = max(room_tokens - notes_tokens, MIN_ROOM_TOKENS)
            if tokens <= most:
                return
            self._room_tokens = int(self._room_tokens * SAFETY * most / tokens)
            self._grow()

    @property
    def _results(self) -> str:
        """What the model reads of the calls of the last turn."""
        assert self._last
        return "\n".join(str(each["content"]) for each in self.prompt.messages[len(self._last[0].messages) + 1 :])

    def _grow(self) -> None:
        assert self._last
        before, said, found = self._last
        new = [source for each in found for source in each.sources]
        differing = disagreements(new, self._sources)
        self._last_fenced = fenced_results(found, self._tools.nonce, self._room_tokens, differing)
        texts = result_texts(self._last_fenced, found, self._tools.nonce, not self.may_call, differing)
        calls = [replace(call, id=call.id or f"call_{call.index}") for call in said.tool_calls]
        results: list[Message] = [
            {"role": "tool", "tool_call_id": call.id, "content": text} for call, text in zip(calls, texts, strict=True)
        ]
        messages = [*before.messages, _turn(said, calls), *results]
        self.prompt = replace(before, messages=messages, samples=1, tool_choice=None)

    async def _found_in_time(self, call: ToolCall, as_text: bool, ends_at: float | None) -> Found:
        try:
            async with asyncio.timeout_at(ends_at):
                return await self._found(call, as_text)
        except TimeoutError:
            return Found(ToolResult(TOOK_TOO_LONG, is_error=True))

    async def _found(self, call: ToolCall, as_text: bool) -> Found:
        tools, run = self._tools.box.tools, self._tools.run
        tool = tools.get(call.name)
        if tool is None:
            away = "".join(f" {server} is {why}." for server, why in self._tools.box.missing.items())
            message = f"There is no tool of this name. There are: {', '.join(tools)}.{away}"
            return run.fail(self._name, call.name, call.arguments, message)
        arguments = _object(call.arguments)
        if arguments is None:
            begun = call.arguments[:MAX_ECHOED_CHARACTERS]
            return run.fail(self._name, call.name, call.arguments, f"The arguments are no JSON object: {begun}")
        return await run.call(self._name, tool, arguments, as_text=as_text)

    def _room(self, said: Answer, calls: int) -> int:
        """How many tokens the results of this turn may have."""
        room = self._room_of_context(said)
        return (
            room if self.left_tokens is None else min(room, int((self.left_tokens - CALL_TOKENS * calls) * TURN_SHARE))
        )

    def _room_of_context(self, said: Answer) -> int:
        context = self.engine.capabilities.context_tokens
        if context is None:
            return UNKNOWN_ROOM_TOKENS
        usage = said.call.usage
        used = usage.prompt_tokens + usage.completion_tokens
        # Several samples count together.
        if usage.estimated or not used or self.prompt.samples > 1:
            used = estimate_tokens(replace(self.prompt, messages=[*self.prompt.messages, _turn(said, said.tool_calls)]))
        wanted = self.sampling.max_completion_tokens or int(context * DEFAULT_REPLY_SHARE)
        reply = min(wanted, int(context * MAX_REPLY_SHARE))
        return max(int((context - used - reply) * TURN_SHARE), MIN_ROOM_TOKENS)


def _object(arguments: str) -> Json | None:
    """The arguments of a call; None if they are no JSON object. A call without any has none."""
    try:
        value = parse_json(arguments.strip() or "{}")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _turn(said: Answer, calls: Sequence[ToolCall]) -> Message:
    """What the model said, for it to read. Chat templates take arguments for JSON objects."""
    written = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": call.arguments if _object(call.arguments) is not None and call.arguments.strip() else "{}",
            },
        }
        for call in calls
    ]
    turn: Message = {"role": "assistant", "content": said.content, "tool_calls": written}
    return {**turn, "reasoning": said.reasoning} if said.reasoning else turn
