"""Where in a YAML file something stands, so that an error can name the line and the key."""

from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from cappella.errors import ConfigError

Path_ = tuple[str | int, ...]
Schema = TypeVar("Schema", bound=BaseModel)


def load(path: Path, schema: type[Schema], mend: str) -> tuple[yaml.Node | None, Schema]:
    """The file's nodes, and what they say in that schema; `mend` is for a file that cannot be read. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", mend) from error
    root, raw = parse(path, text)
    try:
        return root, schema.model_validate(raw)
    except ValidationError as error:
        raise config_error(path, root, schema, error) from error


def parse(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    """The file's nodes, which know their lines, and its values. Raises ConfigError."""
    try:
        root = yaml.compose(text)
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "unreadable"
        raise ConfigError(place, f"is not valid YAML ({problem})", "Mend the line") from error
    _refuse_duplicates(path, root)
    return root, raw


def place(path: Path, root: yaml.Node | None, where: Path_) -> str:
    """The file, the line and the key of `where`."""
    return f"{path}:{_line(root, where)}: {_dotted(where)}"


def _refuse_duplicates(path: Path, node: yaml.Node | None, above: tuple[yaml.Node, ...] = ()) -> None:
    """PyYAML keeps the last of two equal keys and says nothing; here that is an error. So is an alias to itself."""
    if node in above:
        raise ConfigError(
            f"{path}:{above[-1].start_mark.line + 1}", "an alias stands inside what it stands for", "Write it out"
        )
    above = (*above, *([node] if node else []))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise ConfigError(
                    f"{path}:{key.start_mark.line + 1}: {key.value}", "this key stands twice", "Remove one of them"
                )
            seen.add(key.value)
            _refuse_duplicates(path, value, above)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(path, item, above)


def config_error(path: Path, root: yaml.Node | None, schema: type[BaseModel], error: ValidationError) -> ConfigError:
    """The first problem, since the others often follow from it."""
    # A misspelt key is reported twice, as unknown and as missing: the first says more.
    first = min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    where: Path_ = first["loc"]
    at = place(path, root, where)
    match first["type"]:
        case "extra_forbidden":
            return ConfigError(at, "unknown key", _suggest(schema, where))
        case "missing":
            return ConfigError(at, "this key is missing", f"Add {where[-1]}")
        case _:
            problem = first["msg"].removeprefix("Value error, ")
            return ConfigError(at, problem[0].lower() + problem[1:], "Change the value")


def _dotted(where: Path_) -> str:
    return ".".join(str(part) for part in where) or "the file"


def _line(node: yaml.Node | None, where: Path_) -> int:
    """The line of the deepest part of `where` that stands in the file."""
    line = node.start_mark.line + 1 if node else 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _suggest(schema: type[BaseModel], where: Path_) -> str:
    known = sorted(_keys_at(schema, where[:-1]))
    close = get_close_matches(str(where[-1]), known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known keys here: {', '.join(known)}"


def _keys_at(model: Any, where: Path_) -> set[str]:
    """The keys that the schema allows at `where`; a step into a mapping or a list is any name or number."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        if not where:
            return set(model.model_fields)
        field = model.model_fields.get(str(where[0]))
        return _keys_at(field.annotation, where[1:]) if field else set()
    inner = [arg for arg in get_args(model) if arg is not Ellipsis]
    if not inner:
        return set()
    if get_origin(model) in (Union, UnionType):
        return set().union(*(_keys_at(each, where) for each in inner))
    is_annotated = hasattr(model, "__metadata__")
    return _keys_at(inner[0] if is_annotated else inner[-1], where if is_annotated else where[1:])
