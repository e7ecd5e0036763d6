"""The calculator: arithmetic with units, on a thread of its own. Every expression takes some milliseconds at most, or is refused."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cappella.tools.builtin.arithmetic import MAX_CHARS
from cappella.tools.builtin.base import Arguments, BuiltinServer

if TYPE_CHECKING:
    from cappella.tools.builtin.units import Units


class Expression(Arguments):
    """Calculate one expression, exactly where possible. Knows + - * / // ^ % (percent, or remainder between numbers), !,
    brackets, pi, e, sqrt, root(x, n), ln, log10, log(x, base), exp, sin, cos, tan (radians, or 30 deg), asin, abs, round(x, digits),
    floor, ceil, min, max, mean, comb, gcd, lcm; units, as in `3 km / 20 min in km/h`, `5 ft 3 in in cm`, `20 degC in degF`;
    `20% of 50`. No variables and no dates."""

    expression: Annotated[
        str, Field(max_length=MAX_CHARS, description="The expression, as in `3 km/h in m/s` or `sqrt(2) * 10`")
    ]


class Calculator(BuiltinServer[Expression]):
    """Computes expressions, one at a time."""

    def __init__(self, name: str) -> None:
        super().__init__(name, {"calculate": Expression})
        # pint's registry is for one thread at a time.
        self._thread = ThreadPoolExecutor(1, f"tool-{name}")
        self._units: Units | None = None

    async def stop(self) -> None:
        """See `RunningToolServer`. What it computes now ends within milliseconds."""
        await super().stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _prepare(self) -> str | None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._ready_units)
        return None

    async def _answer(self, arguments: Expression) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._calculated, arguments.expression)

    def _ready_units(self) -> "Units":
        # With the import of pint, a second of work that only who has a calculator pays, at the start and on this thread.
        from cappella.tools.builtin.units import Units

        self._units = self._units or Units()
        return self._units

    def _calculated(self, expression: str) -> str:
        from cappella.tools.builtin.expression import calculated

        return calculated(expression, self._ready_units())
