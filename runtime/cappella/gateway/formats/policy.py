"""The one policy for fields of requests: honoured, a hint, asking for nothing, refused by name, or unknown and told.

The tables (`policy_ensembles.py`, `policy_models.py`) are data of these types; `read` applies one of them to a body.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cappella.types import Json

MAX_NAMED = 32
"""How many ignored fields are named. Each name has at most MAX_NAME_CHARS, as printable ASCII: it stands in a header."""
MAX_NAME_CHARS = 64
MAX_PROBLEMS = 10
MAX_PASSED = 256
"""So many unknown fields of an object reach the validation; more than it could know."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of an object, as names with spaces between them.

    `honoured` fields reach the validation; `hints` are dropped, since they change nothing in an answer; `told` are
    dropped and named in `fusion.ignored`, as unknown ones are. A field of `refused` is a 400 with what to do instead.
    Null asks for nothing everywhere, and so do an empty value of a field in `empty` or `refused`, and the values in
    `nothing`. `below` has the policy of a field's own fields, or of those of each entry of a list. Unknown fields reach the validation, which
    may know them, if `passes_unknown`.
    """

    honoured: str = ""
    hints: str = ""
    told: str = ""
    empty: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    nothing: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    below: Mapping[str, "Policy"] = field(default_factory=dict)
    passes_unknown: bool = False
    rules: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        # What is honoured may be a hint elsewhere, such as an id.
        names = {"hint": self.hints, "told": self.told, "honoured": self.honoured}
        rules = {name: rule for rule, each in names.items() for name in each.split()}
        object.__setattr__(self, "rules", {**rules, **dict.fromkeys(self.refused, "refused")})

    def asks_for_nothing(self, name: str, value: Any) -> bool:
        """Whether the field may as well be absent."""
        if value is None:
            return True
        is_empty = isinstance(value, str | list | dict) and not value
        if is_empty and (name in self.refused or name in self.empty.split()):
            return True
        return any(_equal(value, each) for each in self.nothing.get(name, ()))


@dataclass(frozen=True, slots=True)
class Kinds:
    """Objects of several kinds, which their field `tag` tells; `default` is the kind of one without that field.

    Objects of the kinds in `dropped` are hints. Those in `told`, or of any unknown kind if `lets_unknown` is "drop",
    are dropped and told; with "pass" they are left as they are. Else an unknown kind is a 400 that says which exist.
    """

    tag: str
    kinds: Mapping[str, Fields]
    default: str | None = None
    dropped: str = ""
    told: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    lets_unknown: str = "refuse"


Policy = Fields | Kinds


@dataclass(frozen=True, slots=True)
class Problem:
    """One field that is wrong: its path in the body, and what is wrong with it."""

    path: Path
    message: str
    code: str = "invalid_value"

    @property
    def where(self) -> str:
        return ".".join(map(str, self.path))


@dataclass(slots=True)
class Reading:
    """A body as the policy leaves it, the names of what was ignored, and what was refused.

    `places` has the indexes in the client's body of the entries of each list that lost some.
    """

    body: Json
    ignored: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    places: dict[Path, Sequence[int]] = field(default_factory=dict)

    def ignore(self, *path: str | int) -> None:
        """Name a field that is ignored; places in lists are left out, so that each is named once."""
        if len(self.ignored) >= MAX_NAMED:
            return
        name = ".".join(each[:MAX_NAME_CHARS] for each in path if isinstance(each, str))
        name = "".join(each if "!" <= each <= "~" and each != "," else "?" for each in name)[:MAX_NAME_CHARS]
        if name not in self.ignored:
            self.ignored.append(name)

    def refuse(self, path: Path, message: str, code: str = "invalid_value") -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(path, message, code))


def read(policy: Fields, body: Json, refuse_unknown: bool = False) -> Reading:
    """The body without all that is a hint, asks for nothing or is unknown. Parts that do not change are not copied."""
    reading = Reading(body)
    reading.body = _Reader(reading, refuse_unknown).object(policy, body, ())
    return reading


_DROPPED = object()


@dataclass(frozen=True, slots=True)
class _Reader:
    reading: Reading
    refuse_unknown: bool

    def value(self, policy: Policy, value: Any, path: Path) -> Any:
        if isinstance(value, list):
            return self._list(policy, value, path)
        if not isinstance(value, dict):
            return value
        return self.object(policy, value, path) if isinstance(policy, Fields) else self._tagged(policy, value, path)

    def object(self, policy: Fields, value: Json, path: Path) -> Json:
        out = dict(self._kept(policy, value, path))
        same = len(out) == len(value) and all(out[name] is value[name] for name in out)
        return value if same else out

    def _kept(self, policy: Fields, value: Json, path: Path) -> Iterator[tuple[str, Any]]:
        unknown = 0
        for name, each in value.items():
            rule = policy.rules.get(name)
            if policy.asks_for_nothing(name, each):
                continue
            if rule == "honoured":
                below = policy.below.get(name)
                kept = each if below is None else self.value(below, each, (*path, name))
                # What is empty without its hints asks for nothing either.
                if kept is each or not (kept is _DROPPED or policy.asks_for_nothing(name, kept)):
                    yield name, kept
            elif rule == "refused":
                self.reading.refuse((*path, name), policy.refused[name])
            elif rule == "told":
                self.reading.ignore(*path, name)
            elif rule is None and policy.passes_unknown:
                if (unknown := unknown + 1) <= MAX_PASSED:
                    yield name, each
                else:
                    self.reading.refuse((*path, name), "there is no such field", "unknown_field")
            elif rule is None:
                self._unknown((*path, name))

    def _unknown(self, path: Path) -> None:
        if self.refuse_unknown:
            self.reading.refuse(path, "there is no such field (server.unknown_fields: refuse)", "unknown_field")
        else:
            self.reading.ignore(*path)

    def _list(self, policy: Policy, values: list[Any], path: Path) -> list[Any]:
        kept, places = [], []
        for index, each in enumerate(values):
            if (value := self.value(policy, each, (*path, index))) is not _DROPPED:
                kept.append(value)
                places.append(index)
        if len(kept) < len(values):
            self.reading.places[path] = places
        same = len(kept) == len(values) and all(one is other for one, other in zip(kept, values, strict=True))
        return values if same else kept

    def _tagged(self, policy: Kinds, value: Json, path: Path) -> Any:
        kind = value.get(policy.tag)
        kind = policy.default if kind is None else kind
        if isinstance(kind, str) and (fields := policy.kinds.get(kind)):
            return self.object(fields, value, path)
        return self._of_other_kind(policy, value, kind, path)

    def _of_other_kind(self, policy: Kinds, value: Json, kind: Any, path: Path) -> Any:
        at = (*path, policy.tag)
        if not isinstance(kind, str):
            if policy.lets_unknown == "pass":
                return value
            self.reading.refuse(at, "Field required" if kind is None else "Input should be a string")
        elif kind in policy.dropped.split():
            pass
        elif kind in policy.refused:
            self.reading.refuse(at, policy.refused[kind])
        elif kind in policy.told.split() or policy.lets_unknown == "drop":
            self.reading.ignore(*path, kind)
        elif policy.lets_unknown == "pass":
            return value
        else:
            self.reading.refuse(at, f"{kind[:60]!r} is none of the kinds that exist here: {', '.join(policy.kinds)}")
        return _DROPPED


def _equal(value: Any, other: Any) -> bool:
    """Whether both are the same JSON: true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
