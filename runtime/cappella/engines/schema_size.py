"""The size of a JSON schema with its references followed, as the grammar that an engine makes of it has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMES = ("$id", "id", "$anchor", "$dynamicAnchor")


@dataclass(frozen=True, slots=True)
class Size:
    """`levels` of nesting; `items` that its arrays may have; `properties` of its largest object; `patterns`; `parts` in all.

    `is_recursive`: a part contains itself.
    """

    levels: int = 0
    items: float = 0
    properties: int = 0
    patterns: int = 0
    parts: int = 0
    is_recursive: bool = False


class SchemaTooDeep(Exception):
    """It has more levels than it may have."""


def schema_size(schema: Any, max_levels: int) -> Size:
    """The size of a schema. A reference to a part that contains it adds nothing. Raises SchemaTooDeep."""
    try:
        return _Measure(schema, max_levels).of(schema, 1)
    except RecursionError as error:
        raise SchemaTooDeep from error


class References:
    """The parts of a schema that its references name."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._named = {_last(name): part for part, name in _named_parts(root)}

    def target(self, reference: str) -> Any:
        """The part that a reference names; None if there is none."""
        address, _, pointer = reference.partition("#")
        part = self._root if not address else self._named.get(_last(address))
        if pointer and not pointer.startswith("/"):
            return self._named.get(pointer)
        for name in pointer.split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if isinstance(part, list) and key.isdecimal() and int(key) < len(part):
                part = part[int(key)]
            else:
                part = part.get(key) if isinstance(part, Mapping) else None
        return part


class _Measure:
    def __init__(self, root: Any, max_levels: int) -> None:
        self._references = References(root)
        self._max_levels = max_levels
        self._open: set[str] = set()
        self._known: dict[str, Size] = {}

    def of(self, part: Any, level: int) -> Size:
        if level > self._max_levels:
            raise SchemaTooDeep
        below = [self._of_entry(key, each, level) for key, each in _entries(part)]
        own = _own_size(part) if isinstance(part, Mapping) else Size()
        return Size(
            1 + max((each.levels for each in below), default=0),
            own.items + sum(each.items for each in below),
            max(own.properties, *(each.properties for each in below), 0),
            own.patterns + sum(each.patterns for each in below),
            1 + sum(each.parts for each in below),
            any(each.is_recursive for each in below),
        )

    def _of_entry(self, key: str, value: Any, level: int) -> Size:
        if key in REFERENCES and isinstance(value, str):
            return self._of_reference(value, level)
        return self.of(value, level + 1) if isinstance(value, Mapping | list) else Size()

    def _of_reference(self, reference: str, level: int) -> Size:
        if reference in self._open:
            # Recursion costs a grammar nothing.
            return Size(is_recursive=True)
        if reference not in self._known:
            self._open.add(reference)
            self._known[reference] = self.of(self._references.target(reference), level + 1)
            self._open.discard(reference)
        if level + self._known[reference].levels > self._max_levels:
            raise SchemaTooDeep
        return self._known[reference]


def _own_size(part: Mapping[str, Any]) -> Size:
    lists = [len(part[key]) for key in ("prefixItems", "items") if isinstance(part.get(key), list)]
    bounds = [part[key] for key in ("minItems", "maxItems") if _is_number(part.get(key))]
    properties = part.get("properties")
    by_pattern = part.get("patternProperties")
    return Size(
        items=max([*lists, *bounds], default=0),
        properties=len(properties) if isinstance(properties, Mapping) else 0,
        patterns=isinstance(part.get("pattern"), str) + (len(by_pattern) if isinstance(by_pattern, Mapping) else 0),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _entries(part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, Mapping):
        yield from part.items()
    elif isinstance(part, list):
        yield from (("", each) for each in part)


def _named_parts(root: Any) -> Iterator[tuple[Any, str]]:
    """Each part that has a name of its own beside its place, and the name."""
    level = [root]
    while level:
        part = level.pop()
        yield from ((part, value) for key, value in _entries(part) if key in _NAMES and isinstance(value, str))
        level += [each for _, each in _entries(part) if isinstance(each, Mapping | list)]


def _last(address: str) -> str:
    """The last part of an address: the base that it is relative to is not looked at."""
    return address.rstrip("#/").rsplit("/", 1)[-1]
