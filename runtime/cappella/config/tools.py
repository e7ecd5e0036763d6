"""The `tools` section of a config: servers of tools that members and judges may call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    IPvAnyAddress,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from cappella.config.builtin_tools import BuiltinTool
from cappella.config.fields import Bytes
from cappella.config.options import Seconds
from cappella.types import Frozen


class ToolLimits(Frozen):
    """Limits of one tool server: of each call, and of its result."""

    timeout_s: Seconds = 30.0
    max_result_bytes: Annotated[Bytes, Field(ge=1)] = ByteSize(64 << 10)


def _as_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    raise ValueError(f"write a list, the program and its arguments: [{', '.join(value.split())}]")


class CommandTool(ToolLimits):
    """An MCP server that Cappella starts, over its standard input and output.

    It has no network; with `may_reach` it has, and the guard for Python refuses all other addresses. `folder` is where it is
    started: the config's own unless it is set. `memory_bytes` is a limit of all its processes.
    """

    command: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_list)]
    env: Mapping[str, str] = {}
    folder: Path | None = None
    may_reach: tuple[IPvAnyAddress, ...] = ()
    memory_bytes: Annotated[Bytes, Field(ge=1)] = ByteSize(1 << 30)


class UrlTool(ToolLimits):
    """An MCP server that runs already, over streamable HTTP, on this machine or at an address of `server.may_reach`."""

    url: Annotated[str, Field(pattern="^https?://")]
    key_file: Path | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


KINDS: Mapping[str, type[CommandTool | UrlTool | BuiltinTool]] = {
    "command": CommandTool,
    "url": UrlTool,
    "builtin": BuiltinTool,
}


def _of_its_kind(value: object, _: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    """Chooses the kind by its key, because a plain union would report the errors of all kinds."""
    if not isinstance(value, Mapping):
        return value
    kinds = [key for key in KINDS if key in value]
    if len(kinds) != 1:
        has = f"; this has {', '.join(map(str, value))}" if value else ""
        raise ValueError(f"a tool server has one of {', '.join(KINDS)}{has}")
    return KINDS[kinds[0]].model_validate(value, context=info.context)


AnyTool = Annotated[CommandTool | UrlTool | BuiltinTool, WrapValidator(_of_its_kind)]
