"""The final answer on its way to the caller: each piece is sent, and what has been sent limits what may follow."""

from collections.abc import Sequence
from dataclasses import replace

from cappella.ensemble.citations import Citations
from cappella.ensemble.events import Emit, FinalDelta
from cappella.ensemble.fallback import cut_at_stop
from cappella.ensemble.run import Answer
from cappella.types import Chunk, Prompt


class FinalOutput:
    """The output of one run, for the caller's `prompt`. `has_begun`: a piece has been sent, be it of the thoughts before it."""

    def __init__(self, prompt: Prompt, stop: Sequence[str], citations: Citations, emit: Emit) -> None:
        self._prompt = prompt
        self._stop = stop
        self._citations = citations
        self._emit = emit
        self.has_begun = self._has_text = self._has_tool_call = False

    @property
    def rules_out_another(self) -> bool:
        """Whether what has been sent, of a tool call or in a format, allows no other answer after it."""
        return self._has_tool_call or (self._has_text and self._prompt.output_format is not None)

    def send(self, chunk: Chunk) -> None:
        """Send a piece, unless it is empty."""
        if chunk.content or chunk.reasoning or chunk.tool_calls or chunk.logprobs:
            self.has_begun = True
            self._has_text = self._has_text or bool(chunk.content)
            self._has_tool_call = self._has_tool_call or bool(chunk.tool_calls)
            self._emit(FinalDelta(chunk, self._citations.take()))

    def send_verbatim(self, answer: Answer, after_partial_output: bool = False) -> Answer:
        """Send a member's answer as the final one, cut at the caller's stop texts; returns it as it was sent."""
        answer = cut_at_stop(answer, self._stop)
        # Members may be asked for some that the caller did not ask for.
        answer = answer if self._prompt.logprobs is not None else replace(answer, logprobs=())
        gap = "\n\n" if after_partial_output and self._has_text else ""
        answer = self._citations.checked(answer, self._prompt.output_format, len(gap))
        self.send(Chunk(gap + answer.content, answer.reasoning, answer.tool_calls, answer.logprobs))
        return answer
