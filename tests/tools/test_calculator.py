"""The calculator: exact numbers, units, and expressions that it refuses at once."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.tools.base import ToolResult
from cappella.tools.builtin.arithmetic import MAX_CHARS
from cappella.tools.builtin.base import Refused
from cappella.tools.builtin.calculator import Calculator
from cappella.tools.builtin.expression import calculated
from cappella.tools.builtin.units import Units


@pytest.fixture(scope="module")
def calculator() -> Iterator[Calculator]:
    server = Calculator("calc")
    asyncio.run(started(server))
    yield server
    asyncio.run(server.stop())


async def started(server: Calculator) -> None:
    await server.start()
    await server.started()


async def of(calculator: Calculator, expression: object) -> ToolResult:
    return await calculator.call("calculate", {"expression": expression})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0.1 + 0.2", "0.3"),
        ("2^100", "1267650600228229401496703205376"),
        ("-2^2", "-4"),
        ("2^3^2", "512"),
        ("2^-1", "0.5"),
        ("(1 + 2) * 3 - 4 / 8", "8.5"),
        ("1/3", "0.333333333333333 (rounded, exactly 1/3)"),
        ("7 // 2", "3"),
        ("17 % 5", "2"),
        ("20% of 50", "10"),
        ("80 + 10%", "88"),
        ("5% + 3%", "0.0515"),
        ("sqrt(2)", "1.4142135623731 (rounded)"),
        ("sqrt(16/9)", "1.33333333333333 (rounded, exactly 4/3)"),
        ("8^(1/3)", "2"),
        ("cbrt(-27)", "-3"),
        ("log10(1000)", "3"),
        ("log(8, 2)", "3"),
        ("sin(30 deg) + cos(60°)", "1 (rounded)"),
        ("sin(pi)", "0"),
        ("asin(1) in degrees", "90 deg (rounded)"),
        ("10! / 8!", "90"),
        ("comb(52, 5)", "2598960"),
        ("round(2.567, 2)", "2.57"),
        ("mean(1, 2, 6)", "3"),
        ("1.5e3 × 2 =", "3000"),
        ("1e-30", "0.000000000000000000000000000001"),
    ],
)
async def test_numbers_are_exact_where_they_can_be(calculator: Calculator, expression: str, value: str) -> None:
    assert await of(calculator, expression) == ToolResult(value)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3 km/h in m/s", "0.833333333333333 m/s (rounded, exactly 5/6)"),
        ("5 ft 3 in in cm", "160.02 cm"),
        ("5 ft 3 in", "5.25 ft"),
        ("3 in to cm", "7.62 cm"),
        ("20 °C in °F", "68 °F"),
        ("-40 degC to degF", "-40 °F"),
        ("10 degC + 5 delta_degC", "15 °C"),
        ("3 km + 500 m", "3.5 km"),
        ("100 km / 2 h", "50 km/h"),
        ("15 km per 30 min in km/h", "30 km/h"),
        ("3 km / (500 m)", "6"),
        ("5 m * 4 m", "20 m^2"),
        ("sqrt(9 m^2)", "3 m"),
        ("70 kg * 9.81 m/s² in N", "686.7 N"),
        ("2 GiB in MB", "2147.483648 MB"),
        ("max(3 km, 2 mi)", "2 mi"),
        ("floor(5.7 m)", "5 m"),
        ("3/4 as percent", "75 %"),
    ],
)
async def test_units_are_computed_with(calculator: Calculator, expression: str, value: str) -> None:
    assert await of(calculator, expression) == ToolResult(value)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("5 kg + 3 m", "kg and m"),
        ("20 degC + 5 degC", "delta_degC"),
        ("20 C in F", "degC"),
        ("1/0", "zero"),
        ("5 % 0", "zero"),
        ("log(5)", "log10"),
        ("sqrt(-1)", "negative"),
        ("tan(90°)", "right angle"),
        ("12 parrots", "'parrots'"),
        ("1,234 + 1", "without commas"),
        ("(2 + 3", "bracket"),
        ("2 +", "too early"),
        ("", "too early"),
        ("sin(1, 2)", "2 values"),
        ("sqrt()", "0 values"),
        ("2 ** (3 m)", "without m"),
        ("1 m + 1", "different things"),
    ],
)
async def test_what_has_no_value_is_told(calculator: Calculator, expression: str, told: str) -> None:
    result = await of(calculator, expression)
    assert result.is_error
    assert told in result.text


async def test_what_it_prints_it_reads(calculator: Calculator) -> None:
    shown = (await of(calculator, "3 kg * 2 m / s^2 / K")).text
    assert shown == "6 kg*m/(s^2*K)"
    assert (await of(calculator, shown)).text == shown


@pytest.mark.parametrize("arguments", [{}, {"expression": 3}, {"expression": "1", "x": 1}, {"expression": "1" * 5000}])
async def test_wrong_arguments_are_told(calculator: Calculator, arguments: dict[str, object]) -> None:
    result = await calculator.call("calculate", arguments)
    assert result.is_error
    assert "expression" in result.text or "x:" in result.text
    assert (await calculator.call("evaluate", {})).text.startswith("There is no tool 'evaluate'")


PIECES = st.sampled_from(
    "0 1 9 9.5 1e9 + - * / // ^ ** % ! ( ) , sqrt( log( comb( mean( m km degC h dB of in to pi e x ²".split()
)


# Half a second of work, which not each process that only collects this file should do.
units = cache(Units)


@given(st.one_of(st.lists(PIECES, max_size=30).map(" ".join), st.text(max_size=60)))
def test_whatever_it_reads_it_gives_a_value_or_refuses(expression: str) -> None:
    with suppress(Refused):
        assert calculated(expression, units())


def test_its_tool_has_a_short_schema(calculator: Calculator) -> None:
    (tool,) = calculator.tools
    assert (tool.server, tool.name) == ("calc", "calculate")
    assert tool.parameters["required"] == ["expression"]
    assert tool.parameters["properties"]["expression"]["maxLength"] == MAX_CHARS


async def test_calls_on_the_way_when_it_stops_get_a_result() -> None:
    server = Calculator("calc")
    await started(server)
    calls = [asyncio.create_task(of(server, "1 + 1")) for _ in range(200)]
    await asyncio.sleep(0)
    await server.stop()
    results = await asyncio.gather(*calls)
    assert {result.text for result in results if result.is_error} == {"This tool was stopped before it answered."}
    assert (await of(server, "1 + 1")).text == "This tool has a problem: it is stopped."


async def test_who_gives_up_a_call_gives_up_no_other() -> None:
    server = Calculator("calc")
    await started(server)
    calls = [asyncio.create_task(of(server, "1 + 1")) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [ToolResult("2")] * 2
    await server.stop()
