"""Numbers of the calculator: exact fractions while they are, else floats; nothing that is computed takes long."""

import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction

from cappella.tools.builtin.base import Refused

Number = Fraction | float

MAX_CHARS = 1000
"""Of an expression."""
MAX_BITS = 8192
"""Of a numerator or denominator: some 2,400 digits."""
MAX_EXACT_DIGITS = 40
MAX_SHOWN_FRACTION = 10**6


def checked(value: Number) -> Number:
    """The value. Raises Refused if it is too large, or no number."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Refused("The result is too large, or is no number.")
        return value
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise Refused(f"A number on the way has more than {math.floor(MAX_BITS * math.log10(2)):,} digits.")
    return value


def number(text: str) -> Fraction:
    """An unsigned decimal number, exactly."""
    exponent = text.lower().partition("e")[2]
    if len(exponent.lstrip("+-")) > 4 or len(text) > 400:
        raise Refused(f"{text[:20]}… is too long, or its exponent is.")
    value = checked(Fraction(text))
    assert isinstance(value, Fraction)
    return value


def power(base: Number, exponent: Number) -> Number:
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        size = abs(exponent.numerator)
        if base.denominator == 1 and abs(base) <= 1:
            if base == 0 and exponent < 0:
                raise Refused("That divides by zero.")
            return Fraction(base.numerator ** (size % 2 if size else 0)) if size else Fraction(1)
        if (bits - 1) * size <= MAX_BITS:
            return checked(base**exponent.numerator)
        if base.denominator == 1:
            raise Refused("The result has too many digits.")
    if isinstance(exponent, Fraction) and (exact := _exact_root(base, exponent)) is not None:
        return exact
    if base < 0 and exponent != int(exponent):
        raise Refused("A root of a negative number is no real number.")
    return checked(math.pow(base, exponent))


def _exact_root(base: Number, exponent: Fraction) -> Number | None:
    """The power if it is exact, as of 8^(1/3)."""
    degree = exponent.denominator
    if not isinstance(base, Fraction) or base < 0 or not 1 < degree <= 64:
        return None
    parts = [_integer_root(each, degree) for each in (base.numerator, base.denominator)]
    if any(root**degree != each for root, each in zip(parts, (base.numerator, base.denominator), strict=True)):
        return None
    return power(Fraction(*parts), Fraction(exponent.numerator))


def _integer_root(value: int, degree: int) -> int:
    """The largest integer whose power is at most the value, by Newton's method."""
    if value < 2:
        return value
    guess = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * guess + value // guess ** (degree - 1)) // degree
        if better >= guess:
            return guess
        guess = better


def root(value: Number, degree: Number = Fraction(2)) -> Number:
    if degree == 0:
        raise Refused("There is no root of degree 0.")
    if value < 0 and isinstance(degree, Fraction) and degree.denominator == 1 and degree.numerator % 2:
        return -root(-value, degree)
    return power(value, 1 / degree)


def logarithm(value: Number, base: Number | None = None) -> Number:
    if base is None:
        raise Refused("log has no single meaning: write ln(x), log10(x), log2(x) or log(x, base).")
    if value <= 0 or base <= 0 or base == 1:
        raise Refused("A logarithm is of a positive number, to a positive base other than 1.")
    if not (divisor := _ln(base)):
        raise Refused("The base of the logarithm is too close to 1.")
    result = _ln(value) / divisor
    nearest = Fraction(round(result))
    exact = isinstance(value, Fraction) and isinstance(base, Fraction) and abs(nearest) < 10_000
    return nearest if exact and math.isclose(result, nearest) and power(base, nearest) == value else result


def _ln(value: Number) -> float:
    # The logarithm of a fraction whose parts are beyond a float's range.
    return math.log(value.numerator) - math.log(value.denominator) if isinstance(value, Fraction) else math.log(value)


def _natural(value: Number) -> Number:
    return Fraction(0) if value == 1 else logarithm(value, math.e)


def _whole(value: Number) -> int:
    if value != int(value):
        raise Refused(f"{shown(value)} is not a whole number.")
    return int(value)


def factorial(value: Number) -> Number:
    if not 0 <= _whole(value) <= 800:
        raise Refused("Factorials are of whole numbers from 0 to 800.")
    return Fraction(math.factorial(_whole(value)))


def _chosen(count: Callable[[int, int], int]) -> Callable[[Number, Number], Number]:
    def chosen(of: Number, taken: Number) -> Number:
        n, k = _whole(of), _whole(taken)
        k = min(k, n - k) if count is math.comb else k
        if n < 0 or max(k, 0) * n.bit_length() > MAX_BITS:
            raise Refused("Those numbers are too large, or negative.")
        return Fraction(count(n, max(k, 0))) if 0 <= _whole(taken) <= n else Fraction(0)

    return chosen


def _divisors(combine: Callable[..., int]) -> Callable[..., Number]:
    return lambda *values: checked(Fraction(combine(*map(_whole, values))))


def rounded(value: Number, digits: Number = Fraction(0)) -> Number:
    places = _whole(digits)
    if abs(places) > 100:
        raise Refused("It rounds to 100 digits at most.")
    return round(Fraction(value), places) if places else Fraction(round(value))


def modulo(left: Number, right: Number) -> Number:
    return checked(operator.mod(left, _divisor(right)))


def _divisor(value: Number) -> Number:
    if value == 0:
        raise Refused("That divides by zero.")
    return value


def _tangent(value: float) -> float:
    if abs(math.cos(value)) < 1e-15:
        raise Refused("There is no tangent of a right angle.")
    return math.tan(value)


def _float(function: Callable[[float], float]) -> Callable[[Number], Number]:
    """A function of floats: its result is clean where only a float's error keeps it from a whole number or zero."""

    def computed(value: Number) -> Number:
        result = float(checked(function(float(value))))
        return Fraction(round(result)) if abs(result - round(result)) < 1e-15 and abs(result) < 2 else result

    return computed


FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "sqrt": root,
    "cbrt": lambda value: root(value, Fraction(3)),
    "root": root,
    "exp": _float(math.exp),
    "ln": _natural,
    "log": logarithm,
    "log10": lambda value: logarithm(value, Fraction(10)),
    "log2": lambda value: logarithm(value, Fraction(2)),
    "sin": _float(math.sin),
    "cos": _float(math.cos),
    "tan": _float(_tangent),
    "asin": _float(math.asin),
    "acos": _float(math.acos),
    "atan": _float(math.atan),
    "sinh": _float(math.sinh),
    "cosh": _float(math.cosh),
    "tanh": _float(math.tanh),
    "degrees": math.degrees,
    "radians": math.radians,
    "abs": abs,
    "round": rounded,
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "factorial": factorial,
    "comb": _chosen(math.comb),
    "perm": _chosen(math.perm),
    "gcd": _divisors(math.gcd),
    "lcm": _divisors(math.lcm),
    "mod": modulo,
    "pow": power,
}
"""What takes and gives plain numbers; angles are in radians."""

CONSTANTS: Mapping[str, Number] = {"pi": math.pi, "π": math.pi, "tau": math.tau, "e": math.e}


def shown(value: Number, unit: str = "") -> str:
    """A number as text: all digits where it is exact and short, else 15 of them, with the fraction if it is a short one."""
    after = f" {unit}" if unit else ""
    if isinstance(value, float):
        return f"{value:.15g}{after} (rounded)"
    if (digits := _decimal(value)) is not None:
        return f"{digits}{after}"
    short = value.denominator <= MAX_SHOWN_FRACTION and abs(value.numerator) <= MAX_SHOWN_FRACTION
    return f"{_as_float(value):.15g}{after} (rounded{f', exactly {value}' if short else ''})"


def _as_float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        raise Refused("The result is too large.") from None


def _decimal(value: Fraction) -> str | None:
    """The digits if they end, and soon."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1 or places > MAX_EXACT_DIGITS:
        return None
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"
