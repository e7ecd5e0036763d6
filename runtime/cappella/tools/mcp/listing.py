"""The tools that a server lists, as models may call them: what cannot be called or checked is left out, and told."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from cappella.engines.schema_size import SchemaTooDeep, Size, schema_size
from cappella.tools.base import Tool
from cappella.tools.mcp.recursion import is_applied_more_often
from cappella.types import Json

MAX_TOOLS = 128
MAX_DESCRIPTION_BYTES = 16 << 10
MAX_SCHEMA_BYTES = 64 << 10
MAX_SCHEMA_LEVELS = 200
MAX_SCHEMA_PARTS = 5000
"""With references followed: arguments are checked on the event loop."""
MAX_APPLIED = 5000
"""How often a schema that contains itself may be applied to the parts of arguments."""
TOO_LARGE = "they are too deep or too large for a schema that contains itself"
MAX_NOTES = 20
MAX_MISTAKES = 3
MAX_MISTAKE_CHARACTERS = 300
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool, its name at the server, and what checks its arguments. `is_recursive`: their schema contains itself."""

    tool: Tool
    own_name: str
    validator: Any
    is_recursive: bool = False

    def mistakes(self, arguments: Json) -> str | None:
        """What is wrong with these arguments, for the model; None if they fit the schema."""
        if self.is_recursive:
            if is_applied_more_often(self.tool.parameters, arguments, MAX_APPLIED):
                return f"{TOO_LARGE}: it would be applied more than {MAX_APPLIED} times, so give less, or fewer levels"
            if self.validator.is_valid(arguments):
                return None
            if is_applied_more_often(self.tool.parameters, arguments, MAX_APPLIED, to_tell=True):
                return f"they do not fit the schema, and to say where {TOO_LARGE}"
        found = []
        for error in self.validator.iter_errors(arguments):
            where = "".join(f"[{json.dumps(part)}]" for part in error.instance_path)
            found.append(f"arguments{where}: {error.message}"[:MAX_MISTAKE_CHARACTERS])
            if len(found) == MAX_MISTAKES:
                break
        return "; ".join(found) or None


def read(server: str, listed: Sequence[Any], more: str | None = None) -> tuple[Mapping[str, ListedTool], Sequence[str]]:
    """The usable tools by their names for models, and a note on each that was left out; `more` is one on the list itself."""
    tools: dict[str, ListedTool] = {}
    notes = [more] if more else []
    for item in listed[:MAX_TOOLS]:
        try:
            read_one = _read_one(server, item)
            if read_one.tool.name in tools:
                raise ValueError("another tool has this name, at least for models")
            tools[read_one.tool.name] = read_one
        except ValueError as error:
            name = item.get("name") if isinstance(item, dict) else None
            notes.append(f"tool {str(name)[:64]!r} is left out: {str(error)[:MAX_MISTAKE_CHARACTERS]}")
    if len(listed) > MAX_TOOLS:
        notes.append(f"it lists {len(listed)} tools: those after the first {MAX_TOOLS} are left out")
    if len(notes) > MAX_NOTES:
        notes = [*notes[:MAX_NOTES], f"and {len(notes) - MAX_NOTES} more notes like these"]
    return tools, notes


def _read_one(server: str, item: Any) -> ListedTool:
    """Raises ValueError with the reason why models cannot call it."""
    match item:
        case {"name": str(own_name)}:
            pass
        case _:
            raise ValueError("it has no name")
    name = _NOT_IN_A_NAME.sub("_", own_name)
    if not _NAME.fullmatch(name):
        raise ValueError(
            "models can call only names of at most 64 letters, digits, - and _ that begin with a letter or _"
        )
    described = item.get("description") or item.get("title")
    # A model needs a name and a schema; any other description than text is none.
    description = described if isinstance(described, str) else ""
    _require_size("its description", len(description.encode(errors="replace")), MAX_DESCRIPTION_BYTES)
    schema = item.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ValueError("the schema of its arguments is not of an object")
    _require_size("the schema of its arguments", len(json.dumps(schema)), MAX_SCHEMA_BYTES)
    is_recursive = _modest(schema).is_recursive
    return ListedTool(Tool(server, name, description, schema), own_name, _validator(schema), is_recursive)


def _require_size(what: str, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise ValueError(f"{what} has {size_bytes} bytes, and at most {max_bytes} may be")


def _modest(schema: Json) -> Size:
    """The size of a schema. Raises ValueError if it is too large."""
    try:
        size = schema_size(schema, MAX_SCHEMA_LEVELS)
    except SchemaTooDeep as error:
        raise ValueError(f"the schema of its arguments has more than {MAX_SCHEMA_LEVELS} levels") from error
    if size.parts > MAX_SCHEMA_PARTS:
        raise ValueError(f"the schema of its arguments has more than {MAX_SCHEMA_PARTS} parts with references followed")
    return size


def _validator(schema: Json) -> Any:
    """Raises ValueError for a schema that checks nothing, such as one with a reference to nowhere."""
    try:
        kind: Any = jsonschema_rs.validator_cls_for(schema)
        # offline: a reference to another document is an error, and never a download.
        return kind(schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True, validate_formats=False)
    except Exception as error:
        raise ValueError(f"the schema of its arguments cannot be used: {getattr(error, 'message', error)}") from error
