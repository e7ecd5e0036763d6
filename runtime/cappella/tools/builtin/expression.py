"""The calculator's language: arithmetic with units, such as `5 ft 3 in in cm`. It is computed while it is read."""

import re
from collections.abc import Sequence
from fractions import Fraction

from cappella.tools.builtin import arithmetic
from cappella.tools.builtin.arithmetic import CONSTANTS, MAX_CHARS
from cappella.tools.builtin.base import Refused
from cappella.tools.builtin.units import Units, Value

MAX_DEPTH = 40
MAX_ITEMS = 300

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign>\*\*|//|[-+*/^%!(),]))"
)
_SPELLINGS = {
    "°C": " degC ", "°F": " degF ", "℃": " degC ", "℉": " degF ", "°": " degree ", "×": "*", "·": "*", "⋅": "*", "÷": "/",
    "−": "-", "–": "-", "²": "^2", "³": "^3", "√": " sqrt", "µ": "u", "μ": "u", "Ω": " ohm ",
}  # fmt: skip
_CONVERTS = ("in", "to", "as", "into")
_MEANS = {"per": "/", "of": "*", "mod": "%"}


def calculated(text: str, units: Units) -> str:
    """The value of an expression as text. Raises Refused, also for what would take long."""
    if len(text) > MAX_CHARS:
        raise Refused(f"The expression has more than {MAX_CHARS:,} characters.")
    tokens = _tokens(text)
    if len(tokens) > MAX_ITEMS:
        raise Refused(f"The expression has more than {MAX_ITEMS} numbers, names and signs.")
    try:
        return _computed(tokens, units)
    except ZeroDivisionError:
        raise Refused("That divides by zero, or by what is rounded to zero.") from None
    except OverflowError:
        raise Refused("A number on the way is too large, or too close to zero.") from None


def _computed(tokens: Sequence[str], units: Units) -> str:
    source, target = _split(tokens)
    value = _Reader(source, units).whole()
    if target:
        return units.text(units.converted(value, _Reader(target, units).whole()))
    return units.text(units.simplified(value))


def _tokens(text: str) -> list[str]:
    for spelled, meant in _SPELLINGS.items():
        text = text.replace(spelled, meant)
    text = text.strip().rstrip("=? \n").strip()
    tokens, place = [], 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if not found:
            raise Refused(
                f"{text[place : place + 10].strip()!r} cannot be read. Write one expression, as in 3 km / 20 min."
            )
        place = found.end()
        tokens.append(_MEANS.get(found[0].strip(), found[0].strip()))
    return tokens


def _split(tokens: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What is computed, and the unit that it is told in: after the last `in` or `to` that only names of units follow."""
    for place in range(len(tokens) - 2, 0, -1):
        if tokens[place] in _CONVERTS and _is_unit(tokens[place + 1 :]):
            return tokens[:place], tokens[place + 1 :]
    return tokens, ()


def _is_unit(tokens: Sequence[str]) -> bool:
    signs = {"*", "/", "^", "**", "(", ")", "-"}
    return _is_name(tokens[0]) and all(_is_name(each) or each in signs or each.isdigit() for each in tokens)


def _is_name(token: str) -> bool:
    return token[0].isalpha() or token[0] == "_"


def _is_number(token: str) -> bool:
    return token[0].isdigit() or (token[0] == "." and len(token) > 1)


class _Reader:
    """Reads and computes, by recursive descent: sums, products, signs, units beside numbers, powers, single values."""

    def __init__(self, tokens: Sequence[str], units: Units) -> None:
        self._tokens = tokens
        self._units = units
        self._place = 0
        self._depth = 0

    def whole(self) -> Value:
        value = self._sum()
        if self._next:
            raise Refused(f"{self._next!r} does not belong there. A product is written with *, numbers without commas.")
        return value

    @property
    def _next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    @property
    def _after_next(self) -> str:
        return self._tokens[self._place + 1] if self._place + 1 < len(self._tokens) else ""

    def _take(self, *signs: str) -> str:
        """The next token if it is one of these."""
        found = self._next if self._next in signs else ""
        self._place += bool(found)
        return found

    def _sum(self) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refused(f"The expression is nested more than {MAX_DEPTH} times.")
        value, _ = self._product()
        while sign := self._take("+", "-"):
            right, is_percent = self._product()
            # `80 + 10%` is 88, as on any pocket calculator.
            right = self._units.multiply(value, right) if is_percent else right
            value = self._units.add(value, right) if sign == "+" else self._units.subtract(value, right)
        self._depth -= 1
        return value

    def _product(self) -> tuple[Value, bool]:
        """The value, and whether it is nothing but a percentage."""
        value, is_percent = self._signed()
        while sign := self._take("*", "/", "//", "%"):
            right, _ = self._signed()
            is_percent = False
            if sign == "*":
                value = self._units.multiply(value, right)
            elif sign == "%":
                value = self._units.modulo(value, right)
            else:
                value = self._units.divide(value, right)
                value = self._units.called("floor", [self._units.simplified(value)]) if sign == "//" else value
        return value, is_percent

    def _signed(self) -> tuple[Value, bool]:
        negative = False
        while sign := self._take("-", "+"):
            negative ^= sign == "-"
        value, is_percent = self._beside()
        return (-value if negative else value), is_percent

    def _beside(self) -> tuple[Value, bool]:
        """Numbers with their units: `5 ft 3 in` is a sum, `2 pi` and `3 (1 + 1)` are products."""
        value = self._with_unit()
        while _starts_number(self._next) and self._after_next and _is_name(self._after_next):
            value = self._units.add(value, self._with_unit())
        is_percent = self._next == "%" and not self._goes_on_after_percent()
        if is_percent:
            self._place += 1
            value = self._units.divide(value, Fraction(100))
        return value, is_percent

    def _goes_on_after_percent(self) -> bool:
        following = self._after_next
        return bool(following) and (following == "(" or _is_name(following) or _is_number(following))

    def _with_unit(self) -> Value:
        value = self._power()
        while self._next and (self._next == "(" or _is_name(self._next)):
            value = self._units.attach(value, self._power())
        return value

    def _power(self) -> Value:
        value = self._single()
        while self._take("!"):
            value = self._units.called("factorial", [value])
        if self._take("^", "**"):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise Refused(f"The expression is nested more than {MAX_DEPTH} times.")
            negative = False
            while sign := self._take("-", "+"):
                negative ^= sign == "-"
            exponent = self._power()
            value = self._units.power(value, -exponent if negative else exponent)
            self._depth -= 1
        return value

    def _single(self) -> Value:
        token = self._next
        self._place += 1
        if token == "(":
            value = self._sum()
            self._close()
            return value
        if token and _is_number(token):
            return arithmetic.number(token.replace("_", ""))
        if token and _is_name(token):
            if self._next == "(" and token not in CONSTANTS:
                return self._call(token)
            return CONSTANTS[token] if token in CONSTANTS else self._units.named(token)
        raise Refused(f"A number is missing before {token!r}." if token else "The expression ends too early.")

    def _call(self, name: str) -> Value:
        self._place += 1
        values: list[Value] = []
        while self._next != ")":
            values.append(self._sum())
            if not self._take(","):
                break
        self._close()
        return self._units.called(name, values)

    def _close(self) -> None:
        if not self._take(")"):
            raise Refused(
                "A closing bracket is missing." if not self._next else f"{self._next!r} does not belong there."
            )


def _starts_number(token: str) -> bool:
    return bool(token) and _is_number(token)
