"""Quantities: numbers with units, in pint's registry, with exact factors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import pint

from cappella.tools.builtin import arithmetic
from cappella.tools.builtin.arithmetic import FUNCTIONS, Number
from cappella.tools.builtin.base import Refused

Quantity = Any
"""A pint quantity of an exact or a float magnitude."""
Value = Any
"""A `Number`, or a quantity."""

MAX_NAME_CHARS = 40
MAX_EXPONENT = 12
OF_ANGLES = ("sin", "cos", "tan")
TO_ANGLES = ("asin", "acos", "atan")
KEEPING_UNITS = ("abs", "round", "floor", "ceil")
ROOTS = {"sqrt": Fraction(1, 2), "cbrt": Fraction(1, 3)}
TEMPERATURES = "Temperatures are degC, degF and K; their differences delta_degC and delta_degF."


class Units:
    """The operations of the calculator on numbers and quantities. They raise Refused. Of one thread at a time."""

    def __init__(self) -> None:
        self._registry: Any = pint.UnitRegistry(non_int_type=Fraction, cache_folder=None)

    def named(self, name: str) -> Quantity:
        """One of a unit. Raises Refused if there is none of this name."""
        spellings = dict.fromkeys((name, name.lower())) if len(name) <= MAX_NAME_CHARS and name.isidentifier() else ()
        for spelled in spellings:
            if (unit := self._found(spelled)) is not None:
                return unit
        raise Refused(f"There is no unit, constant or function {name[:MAX_NAME_CHARS]!r}.")

    def _found(self, name: str) -> Quantity | None:
        try:
            unit = self._registry.Quantity(Fraction(1), self._registry.parse_units(name))
            unit.to_base_units()  # Fails for decibels and their like, which are not exact.
            return unit
        except Exception:  # noqa: BLE001 - pint's parser raises errors of many kinds
            return None

    def attach(self, value: Value, unit: Value) -> Value:
        """So many of a unit: `20 degC` is no product, as the scale has an offset."""
        if _has_unit(unit) and not _has_unit(value) and unit.magnitude == 1:
            return self._registry.Quantity(value, unit.units)
        return self.multiply(value, unit)

    def add(self, left: Value, right: Value) -> Value:
        return self._combined("add", left, right, lambda a, b: a + b)

    def subtract(self, left: Value, right: Value) -> Value:
        return self._combined("subtract", left, right, lambda a, b: a - b)

    def multiply(self, left: Value, right: Value) -> Value:
        return self._combined("multiply", left, right, lambda a, b: a * b)

    def divide(self, left: Value, right: Value) -> Value:
        return self._combined("divide", left, right, lambda a, b: a / b)

    def modulo(self, left: Value, right: Value) -> Value:
        return arithmetic.modulo(self._plain(left), self._plain(right))

    def power(self, base: Value, exponent: Value) -> Value:
        plain = self._plain(exponent)
        if not _has_unit(base):
            return arithmetic.power(base, plain)
        if not isinstance(plain, Fraction) or abs(plain) > MAX_EXPONENT or plain.denominator > MAX_EXPONENT:
            raise Refused(f"An exponent of a unit is a number up to {MAX_EXPONENT}.")
        units = base.units ** (plain.numerator if plain.denominator == 1 else plain)
        return self._registry.Quantity(arithmetic.power(base.magnitude, plain), units)

    def converted(self, value: Value, unit: Quantity) -> Value:
        quantity = value if _has_unit(value) else self._registry.Quantity(value, "")
        return self._checked(lambda: quantity.to(unit.units), f"convert {self.unit(value)} to {self.unit(unit)}")

    def called(self, name: str, values: Sequence[Value]) -> Value:
        """The result of a function. Raises Refused if there is none of this name, or if it does not take these."""
        if name in ("min", "max", "sum", "mean"):
            return self._of_many(name, values)
        if name not in FUNCTIONS:
            raise Refused(f"There is no function {name[:MAX_NAME_CHARS]!r}. There are {', '.join(sorted(FUNCTIONS))}.")
        try:
            if values and _has_unit(values[0]):
                return self._of_quantity(name, values)
            return arithmetic.checked(FUNCTIONS[name](*map(self._plain, values)))
        except TypeError:
            raise Refused(f"{name} does not take {len(values)} values.") from None
        except OverflowError:
            raise Refused("The result is too large.") from None
        except ValueError:
            raise Refused(f"{name} is not defined for that.") from None

    def simplified(self, value: Value) -> Value:
        """A plain number where the units cancel out."""
        return self._plain(value) if _has_unit(value) and value.unitless else value

    def text(self, value: Value) -> str:
        """As text for the model, with the unit."""
        if not _has_unit(value):
            return arithmetic.shown(value)
        return arithmetic.shown(value.magnitude, "" if not value.unit_items() else self.unit(value))

    def unit(self, value: Value) -> str:
        """Its unit as it can be written in an expression."""
        powers = dict(value.unit_items()) if _has_unit(value) else {}
        above, below = ([*self._powers(powers, sign)] for sign in (1, -1))
        if not powers:
            return "a plain number"
        under = below[0] if len(below) == 1 else f"({'*'.join(below)})"
        return ("*".join(above) or "1") + (f"/{under}" if below else "")

    def _powers(self, powers: Mapping[str, Fraction], sign: int) -> Iterator[str]:
        for name, exponent in powers.items():
            if exponent * sign > 0:
                symbol, size = self._registry.get_symbol(name), abs(Fraction(exponent))
                yield symbol if size == 1 else f"{symbol}^{size}" if size.denominator == 1 else f"{symbol}^({size})"

    def _of_many(self, name: str, values: Sequence[Value]) -> Value:
        if not values:
            raise Refused(f"{name} needs values.")
        best = values[0]
        for value in values[1:]:
            if name in ("min", "max"):
                less = self._sign(self.subtract(value, best)) < 0
                best = value if less == (name == "min") else best
            else:
                best = self.add(best, value)
        return self.divide(best, Fraction(len(values))) if name == "mean" else best

    def _of_quantity(self, name: str, values: Sequence[Value]) -> Value:
        value = values[0]
        if name in ROOTS:
            return self.power(value, ROOTS[name])
        if name == "pow" and len(values) == 2:
            return self.power(value, values[1])
        if name in KEEPING_UNITS and not self._is_plain(value):
            return self._registry.Quantity(FUNCTIONS[name](value.magnitude, *values[1:]), value.units)
        return arithmetic.checked(FUNCTIONS[name](*map(self._plain, values)))

    def _plain(self, value: Value) -> Number:
        """A number without a unit; angles in radians. Raises Refused for a quantity."""
        if not _has_unit(value):
            return arithmetic.checked(value)
        if not self._is_plain(value):
            raise Refused(f"A plain number is needed here, without {self.unit(value)}.")
        return arithmetic.checked(value.to_base_units().magnitude)

    def _is_plain(self, value: Value) -> bool:
        return not _has_unit(value) or bool(value.dimensionless)

    def _sign(self, value: Value) -> Number:
        number: Number = value.magnitude if _has_unit(value) else value
        return number

    def _combined(self, verb: str, left: Value, right: Value, operation: Callable[[Value, Value], Value]) -> Value:
        what = f"{verb} {self.unit(left)} and {self.unit(right)}"
        if verb in ("add", "subtract") and _has_unit(left) != _has_unit(right):
            if not (self._is_plain(left) and self._is_plain(right)):
                raise Refused(f"It cannot {what}: they measure different things.")
            left, right = self._plain(left), self._plain(right)
        return self._checked(lambda: operation(left, right), what)

    def _checked(self, compute: Callable[[], Value], what: str) -> Value:
        try:
            value = compute()
        except Refused:
            raise
        except ZeroDivisionError:
            raise Refused("That divides by zero.") from None
        except OverflowError:
            raise Refused("The result is too large.") from None
        except pint.OffsetUnitCalculusError:
            raise Refused(f"It cannot {what}: the scale has an offset. {TEMPERATURES}") from None
        except pint.DimensionalityError:
            hint = f" {TEMPERATURES}" if {" C", " F"} & {f" {word}" for word in what.split()} else ""
            raise Refused(f"It cannot {what}: they measure different things.{hint}") from None
        except Exception:  # noqa: BLE001 - pint's own, for what its units do not allow
            raise Refused(f"It cannot {what}.") from None
        arithmetic.checked(value.magnitude if _has_unit(value) else value)
        return value


def _has_unit(value: Value) -> bool:
    return isinstance(value, pint.Quantity)
