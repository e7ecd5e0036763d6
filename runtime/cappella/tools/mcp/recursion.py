"""How often a schema that contains itself is applied to arguments: one that does so twice doubles at each level of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from cappella.engines.schema_size import REFERENCES, References
from cappella.types import Json

_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "propertyNames")
_IN_PLACE_BY_NAME = ("dependentSchemas", "dependencies")
_OF_PROPERTIES = ("additionalProperties", "unevaluatedProperties")
_OF_ITEMS = ("prefixItems", "items", "additionalItems", "unevaluatedItems", "contains")

Applied = dict[int, tuple[Any, int]]
"""Parts of a schema by their identity, each with how often it is applied to one value."""


def is_applied_more_often(schema: Json, arguments: Json, most: int, *, to_tell: bool = False) -> bool:
    """Whether the parts of the schema are applied to the arguments and their parts more often than that, at the worst.

    Without `to_tell` of mistakes, a branch that is for another value of a property, such as of `kind`, goes no deeper.
    """
    references, total = References(schema), 0
    left: list[tuple[Any, Applied]] = [(arguments, {id(schema): (schema, 1)})]
    while left:
        value, given = left.pop()
        applied: Applied = {}
        for part, times in given.values():
            for each in _in_place(part, references, most):
                total += times
                if total > most:
                    return True
                if to_tell or not _is_for_another(each, value):
                    _add(applied, each, times)
        left += _below(value, applied)
    return False


def _in_place(part: Any, references: References, most: int) -> list[Any]:
    """The part, and all that it applies to the same value; `most` and one of them at most. A part in itself is left out."""
    found: list[Any] = []
    left: list[tuple[Any, frozenset[int]]] = [(part, frozenset())]
    while left and len(found) <= most:
        each, above = left.pop()
        if isinstance(each, Mapping) and id(each) not in above:
            found.append(each)
            left += [(below, above | {id(each)}) for below in _named_in_place(each, references)]
    return found


def _is_for_another(part: Mapping[str, Any], value: Any) -> bool:
    """Whether a property of the value has another constant than the part wants: it fails there, whatever is below."""
    properties = part.get("properties")
    if not isinstance(properties, Mapping) or not isinstance(value, Mapping):
        return False
    return any(_is_not(wanted, value[name]) for name, wanted in properties.items() if name in value)


def _is_not(wanted: Any, value: Any) -> bool:
    if not isinstance(wanted, Mapping) or not isinstance(value, str):
        return False
    choices = wanted.get("enum")
    is_no_choice = isinstance(choices, list) and value not in choices
    return is_no_choice or ("const" in wanted and wanted["const"] != value)


def _named_in_place(part: Mapping[str, Any], references: References) -> Iterator[Any]:
    for key, value in part.items():
        if key in REFERENCES and isinstance(value, str):
            yield references.target(value)
        elif key in _IN_PLACE:
            yield from value if isinstance(value, list) else (value,)
        elif key in _IN_PLACE_BY_NAME:
            yield from _values(value)


def _below(value: Any, applied: Applied) -> Iterator[tuple[Any, Applied]]:
    """The parts of a value, and what is applied to each."""
    if not isinstance(value, Mapping | list):
        return
    for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
        below: Applied = {}
        for part, times in applied.values():
            for schema in _of_property(part, key) if isinstance(value, Mapping) else _of_item(part):
                _add(below, schema, times)
        if below:
            yield each, below


def _of_property(part: Json, name: Any) -> Iterator[Any]:
    """What a part may apply to a property; which patterns match its name is not looked at."""
    own = part.get("properties")
    is_named = isinstance(own, Mapping) and name in own
    if isinstance(own, Mapping) and is_named:
        yield own[name]
    yield from _values(part.get("patternProperties"))
    if not is_named:
        yield from (part[key] for key in _OF_PROPERTIES if key in part)


def _of_item(part: Json) -> Iterator[Any]:
    for key in _OF_ITEMS:
        value = part.get(key)
        yield from value if isinstance(value, list) else (value,)


def _values(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, Mapping) else ()


def _add(applied: Applied, part: Any, times: int) -> None:
    if isinstance(part, Mapping):
        applied[id(part)] = (part, times + applied.get(id(part), (part, 0))[1])
