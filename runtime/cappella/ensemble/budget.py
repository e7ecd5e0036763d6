"""The tokens that a run may cost in all, enforced before every engine call."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from cappella.engines.base import Engine, TokenCount
from cappella.engines.status import EngineStatus
from cappella.errors import EngineNotReady, EngineOverBudget, EngineRejected
from cappella.types import Capabilities, Chunk, Prompt, Sampling, Usage

MIN_ANSWER_TOKENS = 16


class Budget:
    """What is left of a run's tokens, prompts and answers together; calls in flight have theirs set aside."""

    def __init__(self, total_tokens: int) -> None:
        self._left = total_tokens

    def set_aside(self, prompt_tokens: int, samples: int, wanted: int | None, at_most: int | None) -> int:
        """The tokens that each answer may have; they and the prompt are set aside. Raises EngineOverBudget."""
        limits = [(self._left - prompt_tokens) // samples, wanted, at_most]
        allowed = min(limit for limit in limits if limit is not None)
        if allowed < min(MIN_ANSWER_TOKENS, wanted or MIN_ANSWER_TOKENS):
            raise EngineOverBudget(f"{self._left} tokens are left, and the prompt alone takes {prompt_tokens}")
        self._left -= prompt_tokens + samples * allowed
        return allowed

    def give_back(self, tokens: int) -> None:
        self._left += tokens


class Metered:
    """An engine whose calls are cut to what the budget has left for them; `at_most` per answer."""

    def __init__(self, engine: Engine, budget: Budget, at_most: int | None) -> None:
        self._engine = engine
        self._budget = budget
        self._at_most = at_most

    @property
    def status(self) -> EngineStatus:
        return self._engine.status

    @property
    def in_flight(self) -> int:
        return self._engine.in_flight

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        return await self._engine.count_tokens(prompt)

    async def chat(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """As the engine's, with what was not used given back at the end, if the engine said how much was.

        A call that it refused used nothing.
        """
        # An estimate, where the engine cannot count, is settled at the end by what the engine says.
        size = (await self._engine.count_tokens(prompt)).tokens
        allowed = self._budget.set_aside(size, prompt.samples, sampling.max_completion_tokens, self._at_most)
        set_aside = size + prompt.samples * allowed
        usage: Usage | None = None
        try:
            async with aclosing(
                self._engine.chat(prompt, sampling.model_copy(update={"max_completion_tokens": allowed}))
            ) as chunks:
                async for chunk in chunks:
                    usage = chunk.usage or usage
                    yield chunk
        except (EngineRejected, EngineNotReady):
            usage = Usage()
            raise
        finally:
            if usage is not None:
                self._budget.give_back(set_aside - usage.prompt_tokens - usage.completion_tokens)


def metered(engines: Mapping[str, Engine], budget: Budget | None, at_most: int | None = None) -> Mapping[str, Engine]:
    """The engines, each behind the budget if there is one."""
    if budget is None:
        return engines
    return {name: Metered(engine, budget, at_most) for name, engine in engines.items()}
