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

MAX_NODES = 100_000

# What PyYAML lets through from a value that is not what its tag says, such as a date that is none.
_OF_VALUES = (ValueError, LookupError, TypeError, AttributeError, OverflowError)


def load(path: Path, schema: type[Schema], hint: str) -> tuple[yaml.Node | None, Schema]:
    """The file's nodes, and what they say in that schema; `hint` is for a file that cannot be read. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", hint) from error
    root, raw = parse(path, text)
    try:
        return root, schema.model_validate(raw)
    except ValidationError as error:
        raise config_error(path, root, schema, error) from error


def parse(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    """The file's nodes, which know their lines, and its values. Raises ConfigError."""
    try:
        root = yaml.compose(text)
        if root is not None:
            _size(path, root, {})
        return root, yaml.safe_load(text)
    except (yaml.YAMLError, *_OF_VALUES) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "unreadable"
        raise ConfigError(place, f"is not valid YAML ({problem})", "Fix the line") from error
    except RecursionError as error:
        raise ConfigError(str(path), "is nested too deep", "Write it flatter") from error


def place(path: Path, root: yaml.Node | None, where: Path_) -> str:
    """The file, the line and the key of `where`."""
    return f"{path}:{_line(root, where)}: {_dotted(where)}"


def _size(path: Path, node: yaml.Node, known: dict[int, int], above: tuple[yaml.Node, ...] = ()) -> int:
    """How many nodes there are with every alias written out, each counted once. Raises ConfigError for too many.

    So it does for an alias to itself, and for a key that stands twice: PyYAML keeps the last one and says nothing.
    """
    if node in above:
        raise ConfigError(
            f"{path}:{above[-1].start_mark.line + 1}", "an alias stands inside what it stands for", "Write it out"
        )
    if id(node) in known:
        return known[id(node)]
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(path, node)
        below = [each for pair in node.value for each in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    size = known[id(node)] = 1 + sum(_size(path, each, known, (*above, node)) for each in below)
    if size > MAX_NODES:
        raise ConfigError(
            f"{path}:{node.start_mark.line + 1}", f"aliases make more than {MAX_NODES} values of it", "Write it out"
        )
    return size


def _refuse_duplicates(path: Path, node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise ConfigError(
                f"{path}:{key.start_mark.line + 1}: {key.value}", "this key stands twice", "Remove one of them"
            )
        if isinstance(key, yaml.ScalarNode):
            seen.add(key.value)


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
