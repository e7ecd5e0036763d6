"""Where tool servers are: their paths from the config's folder, and their addresses, which `server.may_reach` must have."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from cappella.config import AnyTool, CommandTool, Config, UrlTool, yaml_source
from cappella.errors import ConfigError


def with_paths(tool: AnyTool, folder: Path) -> AnyTool:
    """The tool server with paths that are relative to the config. A program that is named without a slash is in PATH."""
    match tool:
        case CommandTool():
            program, *arguments = tool.command
            if "/" in program:
                program = str(folder / Path(program).expanduser())
            where = folder / tool.folder.expanduser() if tool.folder else folder
            return tool.model_copy(update={"command": (program, *arguments), "folder": where})
        case UrlTool():
            return tool.model_copy(update={"key_file": tool.key_file and folder / tool.key_file.expanduser()})
        case _:
            return tool.model_copy(update={"files": tuple(folder / each.expanduser() for each in tool.files)})


def check(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    """Addresses of tool servers, and those that they may reach: all that leaves this machine is in `server.may_reach`."""
    for name, tool in config.tools.items():
        if isinstance(tool, UrlTool) and not config.server.may_connect_to(tool.host):
            at = yaml_source.place(path, root, ("tools", name, "url"))
            hint = f"Use a server on this machine, or add the IP address of {tool.host} to server.may_reach"
            yield ConfigError(at, f"{tool.host} is neither on this machine nor in server.may_reach", hint)
        for address in tool.may_reach if isinstance(tool, CommandTool) else ():
            if address not in config.server.may_reach:
                at = yaml_source.place(path, root, ("tools", name, "may_reach"))
                yield ConfigError(at, f"{address} is not in server.may_reach", "Add it there, too, or remove it here")
