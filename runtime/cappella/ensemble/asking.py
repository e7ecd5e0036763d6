"""Calls of a run's judge: each recorded, and one asked once more without thinking where the judge only thought."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from cappella.engines import thinking
from cappella.engines.base import Engine
from cappella.ensemble.call import EngineCall
from cappella.ensemble.citations import Citations
from cappella.ensemble.run import Answer, Role
from cappella.ensemble.sources import Sources
from cappella.errors import EngineError, EngineOnlyThought, EngineOverBudget, EngineRejected
from cappella.types import Chunk, Prompt, Sampling


def unseen(chunk: Chunk) -> None:
    """For a call whose pieces nobody watches."""


@contextmanager
def second_try(first: EngineError) -> Iterator[None]:
    """Where the second question is refused, the `first` error is raised: the caller did not ask the second one."""
    try:
        yield
    except (EngineRejected, EngineOverBudget):
        raise first from None


@dataclass(slots=True)
class Asking:
    """Calls of the judge `name`, whose prompts have marks with the `nonce`. `calls` has every one that was begun.

    Those for the final answer have their `citations` checked, and only it may propose calls of tools, where it `proposes_calls`.
    """

    engine: Engine
    name: str
    nonce: str
    citations: Citations = field(default_factory=lambda: Citations(Sources()))
    calls: list[EngineCall] = field(default_factory=list)
    proposes_calls: bool = False

    async def ask(
        self,
        role: Role,
        prompt: Prompt,
        sampling: Sampling,
        on_chunk: Callable[[Chunk], object] = unseen,
        *,
        once: bool = False,
    ) -> Answer:
        """The whole answer, with the thoughts of both calls if there were two. Raises EngineError, also if there is none.

        With `once` a judge that only thought is not asked again; nor is one that is not known to think.
        """
        call = self.begun(role, prompt)
        try:
            await call.complete(self.engine, prompt, sampling, on_chunk)
            return self._answer(call)
        except EngineOnlyThought as error:
            if once or not self.engine.capabilities.reasoning:
                raise
            first = self._answer(call)
            quiet = thinking.turned_off(prompt, sampling, self.engine.capabilities)
            call = self.begun(role, prompt)
            with second_try(error):
                await call.complete(self.engine, *quiet, on_chunk)
        answer = self._answer(call)
        reasoning, logprobs = first.reasoning + answer.reasoning, [*first.logprobs, *answer.logprobs]
        return replace(answer, reasoning=reasoning, logprobs=logprobs, thought=first.call)

    def begun(self, role: Role, prompt: Prompt) -> EngineCall:
        """A call that is about to be made, which is recorded."""
        citations = self.citations.of_call(prompt.output_format) if role == "final" else None
        may_call = role == "lookup" or (role == "final" and self.proposes_calls)
        call = EngineCall(role, self.name, nonce=self.nonce, citations=citations, may_call=may_call, of_judge=True)
        self.calls.append(call)
        return call

    def _answer(self, call: EngineCall) -> Answer:
        return call.completions[0].answer(self.name, call.record)
