"""`/v1/responses` for ensembles: the request, and the run as output items, with the panel as an item of its own on request."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from cappella.ensemble.citations import cited_in
from cappella.ensemble.run import Run
from cappella.gateway.formats import fields
from cappella.gateway.formats.blocks import blocks_of
from cappella.gateway.formats.fields import ChosenFusion, Wire
from cappella.gateway.formats.fusion_request import FusionRequest
from cappella.gateway.formats.items import InputItem, MessageItem, conversation, listed
from cappella.gateway.formats.response_events import Events, ShownEvents
from cappella.gateway.formats.response_output import fusion_item, id_of, item_of, status_of
from cappella.gateway.formats.response_tools import ChosenTool, Named, ResponseTool, flattened, named_back
from cappella.gateway.reply_types import ErrorBody, Response
from cappella.telemetry import trace
from cappella.types import Json, OutputFormat, Positive, Prompt, Sampling, Temperature, TopP

LOGPROBS = "message.output_text.logprobs"


class FlatSchema(fields.NamedSchema):
    type: Literal["json_schema"]


class TextConfig(Wire):
    format: Annotated[fields.PlainFormat | FlatSchema, Field(discriminator="type")] | None = None


class ResponsesRequest(FusionRequest):
    """A request for a response from an ensemble. The conversation of `previous_response_id` is in `input` by now."""

    input: Annotated[str, Field(min_length=1)] | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_output_tokens: Positive | None = None
    reasoning: fields.Reasoning | None = None
    text: TextConfig | None = None
    tools: Annotated[list[ResponseTool], Field(max_length=128)] | None = None
    tool_choice: (
        Literal["none", "auto", "required"] | Annotated[ChosenTool | ChosenFusion, Field(discriminator="type")] | None
    ) = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    background: bool = False
    _keep: Callable[[Response], None] | None = PrivateAttr(None)
    _created_at: int = PrivateAttr(default_factory=lambda: int(time.time()))

    @model_validator(mode="after")
    def _consistent(self) -> "ResponsesRequest":
        self.require_one_effort(self.reasoning is not None)
        if self.top_logprobs and not self.wants_logprobs:
            raise ValueError(f"top_logprobs needs include: [{LOGPROBS!r}]")
        if not self.tools and self.tool_choice not in (None, "none", "auto"):
            raise ValueError("tool_choice needs tools")
        if self.background and self.store is False:
            raise ValueError("background needs a response that is stored: leave store out")
        return self

    @property
    def items(self) -> list[Json]:
        """The conversation as items, each with an id."""
        said = [MessageItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return [listed(item) for item in said]

    def keep_with(self, keep: Callable[[Response], None]) -> None:
        """Call `keep` with the response once it is complete, or has failed."""
        self._keep = keep

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    @property
    def prompt(self) -> Prompt:
        effort = self.reasoning or self.options.reasoning
        return Prompt(
            messages=conversation(self.instructions, self.input),
            tools=[named.chat_tool for named in flattened(self.own_tools)],
            tool_choice=self._tool_choice,
            parallel_tool_calls=self.parallel_tool_calls if self.own_tools else None,
            output_format=self._output_format,
            logprobs=(self.top_logprobs or 0) if self.wants_logprobs else None,
            reasoning_effort=effort.effort if effort else None,
            template_words=self.chat_template_kwargs or {},
        )

    @property
    def effort_field(self) -> str:
        return "reasoning.effort" if self.reasoning else super().effort_field

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_completion_tokens=self.max_output_tokens)

    def to_response(self, run: Run) -> Response:
        panel_items = [fusion_item(run)] if self.shows_events and run.status != "bypassed" else []
        blocks = blocks_of(run.answer, run.progress, cited_in(run.content, run.sources))
        items = [self.named(item_of(block, run.run_id, "completed")) for block in blocks]
        return self.finished(status_of(run), [*panel_items, *items], run)

    def event_encoder(self) -> Events:
        return Events(self, self._shown_events)

    @property
    def shows_events(self) -> bool:
        return self._shown_events != "none"

    @property
    def _shown_events(self) -> ShownEvents:
        wanted = self.options.include_events
        if self.server_tool and wanted is not False:
            return "hosted"
        return "all" if wanted else "none"

    def named(self, item: Json) -> Json:
        """An output item; a call in it has the kind and name that the client gave to its tool."""
        return named_back(item, self._named_tools)

    @cached_property
    def _named_tools(self) -> dict[str, Named]:
        return {each.flat_name: each for each in flattened(self.own_tools)}

    def finished(self, status: str, output: list[Json], run: Run) -> Response:
        """The complete response, which is kept where it should be."""
        return self._kept(self.response(run.run_id, status, output, run))

    def failed(self, run_id: str, error: ErrorBody) -> Response:
        """The failed response, which is kept as a complete one is."""
        code = error["code"] or "server_error"
        return self._kept(self.response(run_id, "failed", [], error={**error, "code": code}))

    def _kept(self, response: Response) -> Response:
        if self._keep:
            self._keep(response)
        return response

    def response(
        self, run_id: str, status: str, output: list[Json], run: Run | None = None, error: Json | None = None
    ) -> Response:
        """The response object; `run` is None while it is in progress or if it failed."""
        choice = self.tool_choice
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        response: Response = {
            "id": id_of("resp", run_id),
            "object": "response",
            "created_at": self._created_at,
            "completed_at": int(time.time()) if run else None,
            "status": status,
            "background": self.background,
            "store": self._keep is not None,
            "previous_response_id": self.previous_response_id,
            "error": error,
            "incomplete_details": incomplete,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": dict(self.metadata or {}),
            "model": self.model,
            "output": output,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "frequency_penalty": None,
            "presence_penalty": None,
            "text": self.text.model_dump(exclude_none=True, by_alias=True)
            if self.text
            else {"format": {"type": "text"}},
            "tool_choice": choice.model_dump(exclude_none=True) if isinstance(choice, Wire) else choice or "auto",
            "tools": [_echoed(tool) for tool in self.tools or ()],
            "truncation": "disabled",
            "usage": _usage(run) if run else None,
        }
        if run:
            response["fusion"] = trace.fusion(run, self.options)
        return response

    @property
    def _tool_choice(self) -> Any:
        choice = self.own_tool_choice
        if not isinstance(choice, ChosenTool):
            return choice
        return {"type": "function", "function": {"name": choice.flat_name}}

    @property
    def _output_format(self) -> OutputFormat | None:
        wanted = self.text.format if self.text else None
        if wanted is None or wanted.type == "text":
            return None
        if isinstance(wanted, FlatSchema):
            flat = wanted.model_dump(exclude_none=True, by_alias=True, exclude={"type"})
            return OutputFormat("response_format", {"type": "json_schema", "json_schema": flat})
        return OutputFormat("response_format", {"type": wanted.type})


def _echoed(tool: Wire) -> Json:
    return tool.model_dump(exclude_unset=isinstance(tool, fields.FusionTool))


def _usage(run: Run) -> Json:
    spent = trace.run_usage(run)
    return {
        "input_tokens": spent["prompt_tokens"],
        "input_tokens_details": spent["prompt_tokens_details"],
        "output_tokens": spent["completion_tokens"],
        "output_tokens_details": spent["completion_tokens_details"],
        "total_tokens": spent["total_tokens"],
        "fusion_details": spent["fusion_details"],
    }
