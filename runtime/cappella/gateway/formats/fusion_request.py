"""What requests to an ensemble have in all APIs: the options of the run, in our form or in the hosted product's."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, model_validator

from cappella.config.overrides import Overrides
from cappella.gateway.formats.fields import SERVER_TOOL, ChosenFusion, Fusion, FusionPlugin, FusionTool, Wire

TemplateWords = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")],
        bool | int | float | Annotated[str, Field(max_length=1024)],
    ],
    Field(max_length=16),
]


class FusionRequest(Wire):
    """The fields that requests to an ensemble have in all APIs."""

    model: str
    chat_template_kwargs: TemplateWords | None = None
    stream: bool = False
    fusion: Fusion | None = None
    plugins: Annotated[list[FusionPlugin], Field(max_length=1)] | None = None
    tools: Sequence[Any] | None = None
    tool_choice: Any = None
    _outer: str | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_spelling(self) -> "FusionRequest":
        if len(self._spellings) > 1:
            raise ValueError(f"fusion, plugins and the parameters of {SERVER_TOOL} mean the same: send one of them")
        if sum(isinstance(tool, FusionTool) for tool in self.tools or ()) > 1:
            raise ValueError(f"tools has {SERVER_TOOL} twice: send it once")
        if isinstance(self.tool_choice, ChosenFusion) and self.server_tool is None:
            raise ValueError(f"tool_choice names {SERVER_TOOL}, which is not in tools")
        return self

    @property
    def _spellings(self) -> Sequence[Fusion]:
        plugins = [plugin for plugin in self.plugins or () if plugin.enabled]
        parameters = self.server_tool.parameters if self.server_tool else None
        return [each for each in (self.fusion, *plugins, parameters) if each]

    @cached_property
    def options(self) -> Fusion:
        return next(iter(self._spellings), None) or Fusion()

    @property
    def server_tool(self) -> FusionTool | None:
        return next((tool for tool in self.tools or () if isinstance(tool, FusionTool)), None)

    @property
    def own_tools(self) -> Sequence[Any]:
        """The tools that the client itself runs."""
        return [tool for tool in self.tools or () if not isinstance(tool, FusionTool)]

    @property
    def own_tool_choice(self) -> Any:
        """The choice among the client's own tools; one that forces the server tool is met by asking the panel."""
        return self.tool_choice if self.own_tools and not self._requires_panel else None

    @property
    def _requires_panel(self) -> bool:
        return bool(self.server_tool) and (self.tool_choice == "required" or isinstance(self.tool_choice, ChosenFusion))

    def require_one_effort(self, given: bool) -> None:
        """Where the request itself has an effort, one of the hosted product's options, for its panel, is ignored and told.

        Raises ValueError for one in `fusion`.
        """
        if not given or not self.options.reasoning:
            return
        if self.fusion:
            raise ValueError("reasoning_effort, reasoning and fusion.reasoning mean the same: send one of them")
        self.tell_ignored(
            ["plugins.reasoning" if self.options in (self.plugins or ()) else "tools.parameters.reasoning"]
        )

    @property
    def effort_field(self) -> str:
        """The field that says how much to think, as the client knows it."""
        return "fusion.reasoning"

    @property
    def shows_events(self) -> bool:
        """Whether the client gets what happens in the panel."""
        return bool(self.options.include_events)

    @property
    def wants_panel_deltas(self) -> bool:
        """Whether the client gets the members' answers as they are generated."""
        return self.stream and self.shows_events

    @property
    def overrides(self) -> Overrides:
        return replace(self.options.overrides, outer=self._outer, panel_required=self._requires_panel)

    def come_through(self, model: str) -> None:
        """The request calls this model, which has the panel as its server tool."""
        self._outer = model

    @property
    def ignored(self) -> Sequence[str]:
        """The fields of this request that were ignored."""
        return self.options.ignored

    def tell_ignored(self, names: Sequence[str]) -> None:
        """Name fields of this request in the trace of its run, as ignored."""
        self.options.tell_ignored(names)
