"""Tools of the Responses API, their conversion to those of a chat, and the names that its calls have in replies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cappella.gateway.formats import text_tools
from cappella.gateway.formats.fields import Function, FusionTool, TextFunction, ToolName, Wire
from cappella.types import Json


class FunctionTool(Function):
    """A function tool in the flat form of the Responses API."""

    type: Literal["function"]


class CustomTool(TextFunction):
    """A tool that takes a text; models are given it as a function of one string."""

    type: Literal["custom"]


class NamespaceTool(Wire):
    """Tools of one source, such as an MCP server; models are given each as `namespace__name`."""

    type: Literal["namespace"]
    name: ToolName
    description: str | None = None
    tools: list[Annotated[FunctionTool | CustomTool, Field(discriminator="type")]]


ResponseTool = Annotated[FunctionTool | CustomTool | NamespaceTool | FusionTool, Field(discriminator="type")]


class ChosenTool(Wire):
    type: Literal["function", "custom"]
    name: str
    namespace: str | None = None

    @property
    def flat_name(self) -> str:
        return text_tools.flat_name(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Named:
    """A tool as a model calls it, and as the client named it."""

    tool: FunctionTool | CustomTool
    namespace: str | None = None

    @property
    def flat_name(self) -> str:
        return text_tools.flat_name(self.namespace, self.tool.name)

    @property
    def chat_tool(self) -> Json:
        tool = self.tool
        if isinstance(tool, CustomTool):
            told = tool.format.told if tool.format else None
            return {"type": "function", "function": text_tools.function_of(self.flat_name, tool.description, told)}
        function = tool.model_dump(exclude_none=True, exclude={"type"})
        return {"type": "function", "function": {**function, "name": self.flat_name}}


def flattened(tools: Sequence[FunctionTool | CustomTool | NamespaceTool]) -> Iterator[Named]:
    """The tools, with those inside namespaces."""
    for tool in tools:
        if isinstance(tool, NamespaceTool):
            yield from (Named(each, tool.name) for each in tool.tools)
        else:
            yield Named(tool)


def named_back(item: Json, tools: Mapping[str, Named]) -> Json:
    """An output item, which is the client's own kind of call with the client's name if it calls one of `tools`."""
    named = tools.get(item["name"]) if item["type"] == "function_call" else None
    if named is None:
        return item
    name = {"name": named.tool.name, **({"namespace": named.namespace} if named.namespace else {})}
    if isinstance(named.tool, FunctionTool):
        return {**item, **name}
    text = {"input": text_tools.text_of(item["arguments"]) if item["arguments"] else ""}
    kept = {key: value for key, value in item.items() if key != "arguments"}
    return {**kept, **name, **text, "type": "custom_tool_call"}
