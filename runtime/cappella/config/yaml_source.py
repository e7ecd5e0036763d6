"""YAML files with line numbers, so that errors can name the line and key."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from cappella.errors import ConfigError, Mistakes, cause

Path_ = tuple[str | int, ...]
Schema = TypeVar("Schema", bound=BaseModel)

MAX_NODES = 100_000

BOOL_TAG = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """Takes `true` and `false` alone as booleans, as YAML 1.2 does: `off` is a mode here, and YAML 1.1 reads it as false."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOL_TAG or first in "tTfF"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


# Errors that PyYAML raises for a value that does not match its tag, such as an invalid date.
_VALUE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, OverflowError)


def load(path: Path, schema: type[Schema], hint: str) -> tuple[yaml.Node | None, Schema]:
    """The file's nodes and its validated content. Raises ConfigError, with `hint` for an unreadable file.

    Validators find the file's folder in their context.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({cause(error)})", hint) from error
    root, raw = parse(path, text)
    try:
        return root, schema.model_validate(raw, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        raise config_error(path, root, schema, error) from error


def parse(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    """The file's nodes, which have line numbers, and its values. Raises ConfigError for invalid YAML."""
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is not None:
            _size(path, root, {})
        return root, _value(text)
    except (yaml.YAMLError, *_VALUE_ERRORS) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "unreadable"
        raise ConfigError(place, f"is not valid YAML ({problem})", "Fix the line") from error
    except RecursionError as error:
        raise ConfigError(str(path), "is nested too deeply", "Use fewer levels") from error


def option_value(option: str, setting: str, text: str) -> Any:
    """The value of `field=value` on a command line, read as YAML. Raises ConfigError."""
    try:
        return _value(text)
    except (yaml.YAMLError, *_VALUE_ERRORS) as error:
        raise ConfigError(option, f"{setting!r} is not valid YAML", "Put quotes around the value") from error


def _value(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def place(path: Path, root: yaml.Node | None, where: Path_) -> str:
    """File, line and key of `where`."""
    return f"{path}:{_line(root, where)}: {_dotted(where)}"


def _size(path: Path, node: yaml.Node, sizes: dict[int, int], above: tuple[yaml.Node, ...] = ()) -> int:
    """The number of nodes with all aliases expanded.

    Raises ConfigError for too many nodes, an alias to itself, and a duplicate key (PyYAML would keep the last one).
    """
    if node in above:
        raise ConfigError(f"{path}:{above[-1].start_mark.line + 1}", "an alias refers to itself", "Write the value out")
    if id(node) in sizes:
        return sizes[id(node)]
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(path, node)
        below = [each for pair in node.value for each in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    size = sizes[id(node)] = 1 + sum(_size(path, each, sizes, (*above, node)) for each in below)
    if size > MAX_NODES:
        raise ConfigError(
            f"{path}:{node.start_mark.line + 1}", f"aliases expand to more than {MAX_NODES} values", "Write them out"
        )
    return size


def _refuse_duplicates(path: Path, node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise ConfigError(f"{path}:{key.start_mark.line + 1}: {key.value}", "duplicate key", "Remove one of them")
        if isinstance(key, yaml.ScalarNode):
            seen.add(key.value)


def config_error(path: Path, root: yaml.Node | None, schema: type[BaseModel], error: ValidationError) -> ConfigError:
    """All problems as one ConfigError, in the order of the file; those that follow from another are left out."""
    found: dict[Path_, ConfigError] = {}
    # A misspelt key is reported both as unknown and as missing; the former is more useful.
    details = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    meant: set[Path_] = set()
    for each in details:
        # pydantic counts the good items alone.
        if each["type"] == "too_short" and any(_is_below(other["loc"], each["loc"]) for other in details):
            continue
        # pydantic marks the place of a wrong key, as against its value, with "[key]".
        where: Path_ = each["loc"][:-1] if each["loc"][-1:] == ("[key]",) else each["loc"]
        if each["type"] == "missing":
            if where not in meant:
                found.setdefault(
                    where, ConfigError(place(path, root, where), "this key is missing", f"Add {where[-1]}")
                )
            continue
        # A value that may be of several types is reported once for each.
        at = where[: _depth(root, where)] or where
        if each["type"] == "extra_forbidden":
            hint, close = _suggest(schema, where)
            meant |= {(*where[:-1], key) for key in close}
            found.setdefault(at, ConfigError(place(path, root, where), "unknown key", hint))
        else:
            hint = each.get("ctx", {}).get("hint", "Change the value")
            found.setdefault(at, ConfigError(place(path, root, at), message(each), hint))
    ordered = [found[where] for where in sorted(found, key=lambda where: _line(root, where))]
    return ordered[0] if len(ordered) == 1 else Mistakes(ordered)


def _is_below(where: Path_, above: Path_) -> bool:
    return len(where) > len(above) and where[: len(above)] == above


def located(path: Path, root: yaml.Node | None, errors: Sequence[ConfigError]) -> list[ConfigError]:
    """Errors about `models.NAME.KEY: ...` with the file and the line, in the order of the file; others come last, as they are."""
    found = [(_walked(root, error.place.partition(": ")[0]), error) for error in errors]
    in_file = sorted(((where, error) for where, error in found if where), key=lambda each: _line(root, each[0]))
    return [
        *(
            ConfigError(f"{path}:{_line(root, where)}: {error.place}", error.problem, error.hint)
            for where, error in in_file
        ),
        *(error for where, error in found if not where),
    ]


def _walked(node: yaml.Node | None, dotted: str) -> Path_:
    """The keys that a dotted text leads through; keys may have dots themselves."""
    if isinstance(node, yaml.SequenceNode):
        head, _, rest = dotted.partition(".")
        return (int(head), *_walked(node.value[int(head)], rest)) if head.isdecimal() else ()
    if not isinstance(node, yaml.MappingNode):
        return ()
    pairs = {str(key.value): value for key, value in node.value}
    key = max((key for key in pairs if dotted == key or dotted.startswith(f"{key}.")), key=len, default=None)
    return () if key is None else (key, *_walked(pairs[key], dotted[len(key) + 1 :]))


def message(error: Mapping[str, Any]) -> str:
    """pydantic's message on one value, as part of a sentence."""
    text = str(error["msg"]).removeprefix("Value error, ")
    return text[0].lower() + text[1:]


def _dotted(where: Path_) -> str:
    return ".".join(str(part) for part in where) or "the file"


def _line(node: yaml.Node | None, where: Path_) -> int:
    """The line of the deepest part of `where` that the file has."""
    return _deepest(node, where)[0]


def _depth(node: yaml.Node | None, where: Path_) -> int:
    """How many parts of `where` the file has."""
    return _deepest(node, where)[1]


def _deepest(node: yaml.Node | None, where: Path_) -> tuple[int, int]:
    line = node.start_mark.line + 1 if node else 1
    for depth, part in enumerate(where):
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                return line, depth
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line, depth
    return line, len(where)


def _suggest(schema: type[BaseModel], where: Path_) -> tuple[str, list[str]]:
    """A hint about an unknown key, and the key that was meant, if one is close."""
    keys = sorted(_keys_at(schema, where[:-1]))
    close = get_close_matches(str(where[-1]), keys, n=1)
    return (f"Did you mean {close[0]}?" if close else f"Keys here: {', '.join(keys)}"), close


def _keys_at(model: Any, where: Path_) -> set[str]:
    """The keys that the schema allows at `where`; any name or number leads into a mapping or a list."""
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
