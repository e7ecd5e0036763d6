"""The clock: dates, working days, weeks, time zones; at a time that the test sets."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.tools.base import ToolResult
from cappella.tools.builtin import dates
from cappella.tools.builtin.clock import Clock

NOW = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)


async def told(tool: str, **arguments: object) -> ToolResult:
    clock = Clock("clock", "Europe/Berlin", now=lambda: NOW)
    await clock.start()
    await clock.started()
    return await clock.call(tool, arguments)


async def test_now_is_told_with_zone_weekday_and_week() -> None:
    assert (
        (await told("now")).text
        == "2026-03-29 01:30:00 (UTC+01:00, Europe/Berlin); Sunday 2026-03-29, ISO week 2026-W13-7, day 88 of the year"
    )
    assert (await told("now", time_zone="America/New_York")).text.startswith("2026-03-28 20:30:00 (UTC-04:00")


async def test_without_a_zone_it_is_the_machines() -> None:
    clock = Clock("clock", None, now=lambda: NOW)
    await clock.start()
    await clock.started()
    assert clock.problem is None
    assert (await clock.call("now", {})).text.startswith(f"{NOW.astimezone():%Y-%m-%d %H:%M}")


@pytest.mark.parametrize(
    ("tool", "arguments", "start"),
    [
        (
            "about_date",
            {"date": "2024-12-30"},
            "Monday 2024-12-30, ISO week 2025-W01-1, day 365 of the year; 454 days ago",
        ),
        ("about_date", {"date": "2026-03-29"}, "Sunday 2026-03-29, ISO week 2026-W13-7, day 88 of the year; today"),
        ("add_to_date", {"start": "2026-01-31", "months": 1}, "Saturday 2026-02-28"),
        ("add_to_date", {"start": "2024-02-29", "years": 1}, "Friday 2025-02-28"),
        ("add_to_date", {"start": "2026-01-31", "months": -2}, "Sunday 2025-11-30"),
        ("add_to_date", {"start": "2026-11-27", "working_days": 1}, "Monday 2026-11-30"),
        ("add_to_date", {"start": "2026-11-28", "working_days": 1}, "Monday 2026-11-30"),
        ("add_to_date", {"start": "2026-11-28", "working_days": -1}, "Friday 2026-11-27"),
        ("add_to_date", {"start": "2026-11-30", "working_days": -1}, "Friday 2026-11-27"),
        ("add_to_date", {"start": "2026-11-27 9:15", "hours": 15}, "00:15:00, Saturday 2026-11-28"),
        ("add_to_date", {"start": "2026-11-27", "minutes": -1}, "23:59:00, Thursday 2026-11-26"),
        (
            "time_between",
            {"start": "2026-01-31", "end": "2026-03-01"},
            "29 days (4 weeks and 1 days; 0 years, 1 months and 1 days",
        ),
        ("time_between", {"start": "2026-03-01", "end": "2026-01-31"}, "29 days back"),
        (
            "convert_time",
            {"time": "2026-07-01 12:00", "from_zone": "UTC", "to_zone": "Asia/Tokyo"},
            "2026-07-01 21:00:00",
        ),
        (
            "convert_time",
            {"time": "2026-07-01T12:00Z", "from_zone": "", "to_zone": ""},
            "2026-07-01 14:00:00 (UTC+02:00",
        ),
    ],
)
async def test_dates_are_computed(tool: str, arguments: dict[str, object], start: str) -> None:
    result = await told(tool, **arguments)
    assert not result.is_error
    assert result.text.startswith(start)


async def test_hours_between_count_a_change_of_clocks() -> None:
    result = await told("time_between", start="2026-03-29 00:00", end="2026-03-30 00:00")
    assert result.text.endswith("On the clock: 23 h 0 min 0 s")


@pytest.mark.parametrize(
    ("time", "words"), [("2026-03-29 02:30", "skip this time"), ("2026-10-25 02:30", "twice"), ("2026-10-25 04:30", "")]
)
async def test_a_time_that_clocks_skip_or_show_twice_is_told(time: str, words: str) -> None:
    result = await told("convert_time", time=time, from_zone="Europe/Berlin", to_zone="UTC")
    assert words in result.text
    assert result.text.endswith("the year") == (not words)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("about_date", {"date": "31.3.2026"}, "2026-03-31"),
        ("about_date", {"date": "2026-02-30"}, "no date"),
        ("now", {"time_zone": "Europe/Atlantis"}, "Europe/Berlin"),
        ("convert_time", {"time": "2026-03-31", "from_zone": "UTC", "to_zone": "UTC"}, "14:30"),
        ("add_to_date", {"start": "2026-03-31", "days": "many"}, "days"),
    ],
)
async def test_what_is_no_date_is_told(tool: str, arguments: dict[str, object], words: str) -> None:
    result = await told(tool, **arguments)
    assert result.is_error
    assert words in result.text


DAYS = st.dates(date(1900, 1, 1), date(2200, 1, 1))


@given(DAYS, st.integers(-40, 40))
def test_working_days_are_those_that_one_counts_on_a_calendar(start: date, count: int) -> None:
    day = start
    for _ in range(abs(count)):
        day += timedelta(days=1 if count > 0 else -1)
        while day.weekday() > 4:
            day += timedelta(days=1 if count > 0 else -1)
    assert dates.added(start, 0, 0, 0, 0, count, 0) == day


@given(DAYS, st.integers(0, 60))
def test_working_days_between_are_those_that_one_counts(start: date, days: int) -> None:
    counted = sum((start + timedelta(days=each)).weekday() < 5 for each in range(1, days + 1))
    assert dates.working_days_between(start, start + timedelta(days=days)) == counted


@given(DAYS, DAYS)
def test_years_months_and_days_add_up(one: date, other: date) -> None:
    start, end = sorted((one, other))
    years, months, days = dates.calendar_distance(start, end)
    assert dates.added(start, years, months, 0, days, 0, 0) == end


@given(st.text(max_size=30), st.text(max_size=30), st.integers())
async def test_it_never_raises(text: str, zone: str, number: int) -> None:
    assert (await told("now", time_zone=zone)).text
    assert (await told("about_date", date=text)).text
    assert (await told("add_to_date", start="2026-03-31 12:00", years=number, minutes=number)).text
