"""A run's limit on tokens (`max_total_tokens`), enforced before every engine call."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing

from cappella.engines.base import Embeddings, Engine, Score, TokenCount
from cappella.engines.status import EngineStatus
from cappella.ensemble.token_limits import limited
from cappella.errors import EngineNotReady, EngineOverBudget, EngineRejected
from cappella.types import Capabilities, Chunk, Prompt, Sampling, Usage

MIN_ANSWER_TOKENS = 16


class Budget:
    """The tokens that a run may still spend on prompts and answers; running calls have theirs reserved."""

    def __init__(self, total_tokens: int) -> None:
        self._remaining_tokens = total_tokens

    def reserve(
        self, prompt_tokens: int, samples: int, requested_tokens: int | None, max_answer_tokens: int | None
    ) -> int:
        """Reserve the prompt and `samples` answers; returns the tokens of each answer.

        Raises EngineOverBudget if an answer would get fewer than MIN_ANSWER_TOKENS, or than the caller asks for.
        """
        limits = [(self._remaining_tokens - prompt_tokens) // samples, requested_tokens, max_answer_tokens]
        allowed = min(limit for limit in limits if limit is not None)
        if allowed < min(MIN_ANSWER_TOKENS, requested_tokens or MIN_ANSWER_TOKENS):
            message = f"{self._remaining_tokens} tokens are left of max_total_tokens; the prompt needs {prompt_tokens}"
            raise EngineOverBudget(message)
        self._remaining_tokens -= prompt_tokens + samples * allowed
        return allowed

    def require_rest(self) -> None:
        """Raises EngineOverBudget if nothing is left."""
        if self._remaining_tokens <= 0:
            raise EngineOverBudget("nothing is left of max_total_tokens")

    @property
    def remaining_tokens(self) -> int:
        return self._remaining_tokens

    def release(self, tokens: int) -> None:
        """Return reserved tokens that were not used."""
        self._remaining_tokens += tokens


class BudgetedEngine:
    """An engine whose answers are limited to what the budget has left, and to `max_answer_tokens` each."""

    def __init__(self, engine: Engine, budget: Budget, max_answer_tokens: int | None) -> None:
        self._engine = engine
        self._budget = budget
        self._max_answer_tokens = max_answer_tokens

    @property
    def status(self) -> EngineStatus:
        return self._engine.status

    @property
    def in_flight(self) -> int:
        return self._engine.in_flight

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    def keep_awake(self) -> AbstractContextManager[None]:
        return self._engine.keep_awake()

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        return await self._engine.count_tokens(prompt)

    async def score(self, prompt: Prompt, answer: str) -> Score:
        """As `Engine.score`. Raises EngineOverBudget if nothing is left."""
        self._budget.require_rest()
        score = await self._engine.score(prompt, answer)
        self._budget.release(-score.usage.prompt_tokens)
        return score

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """As `Engine.embed`. Raises EngineOverBudget if nothing is left."""
        self._budget.require_rest()
        found = await self._engine.embed(texts)
        self._budget.release(-found.usage.prompt_tokens)
        return found

    async def chat(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """As `Engine.chat`; afterwards unused tokens are released, if the engine reported its usage.

        A call that the engine refused used none. Raises EngineOverBudget before the call.
        """
        # May be an estimate; the usage that the engine reports settles the difference.
        prompt_tokens = (await self._engine.count_tokens(prompt)).tokens
        requested = sampling.max_completion_tokens
        allowed = self._budget.reserve(prompt_tokens, prompt.samples, requested, self._max_answer_tokens)
        reserved = prompt_tokens + prompt.samples * allowed
        usage: Usage | None = None
        try:
            async with aclosing(self._engine.chat(prompt, limited(sampling, allowed))) as chunks:
                async for chunk in chunks:
                    usage = chunk.usage or usage
                    yield chunk
        except (EngineRejected, EngineNotReady):
            usage = Usage()
            raise
        finally:
            if usage is not None:
                self._budget.release(reserved - usage.prompt_tokens - usage.completion_tokens)


def within_budget(
    engines: Mapping[str, Engine], budget: Budget | None, max_answer_tokens: int | None = None
) -> Mapping[str, Engine]:
    """The engines limited by the budget; unchanged without one."""
    if budget is None:
        return engines
    return {name: BudgetedEngine(engine, budget, max_answer_tokens) for name, engine in engines.items()}
