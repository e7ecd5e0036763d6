"""Arithmetic on dates and times: working days, months, time zones, and what is particular about a time."""

import re
from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from cappella.tools.builtin.base import Refused

MAX_AMOUNT = 4_000_000
"""Of anything that is added: more days than a calendar has."""
OUTSIDE = "The result is outside the calendar, which has the years 1 to 9999."
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?(?:Z|[+-]\d{2}:?\d{2})?")


def zone(name: str) -> tzinfo:
    """A time zone by its name. Raises Refused if there is none."""
    if name.upper() in ("UTC", "GMT", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        pass
    if not available_timezones():
        raise Refused("This machine has no time zone data, so only UTC is known: install the package tzdata.")
    raise Refused(f"There is no time zone {name[:60]!r}. Use a name as Europe/Berlin, America/New_York or UTC.")


def read(text: str) -> date | datetime:
    """A date, or a time on a date. Raises Refused."""
    text = text.strip()
    try:
        if _MOMENT.fullmatch(text):
            return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(_padded(text))
    except ValueError as error:
        raise Refused(f"{text!r} is no date: {error}.") from None
    raise Refused(f"{text[:40]!r} is not read here. Write a date as 2026-03-31, or a time as 2026-03-31 14:30.")


def _padded(text: str) -> str:
    return re.sub(r"(?<=[T ])(\d):", r"0\1:", text)


def day_of(moment: date | datetime) -> date:
    return moment.date() if isinstance(moment, datetime) else moment


def added(
    start: date | datetime, years: int, months: int, weeks: int, days: int, working_days: int, seconds: int
) -> date | datetime:
    """Years and months first, then days, then working days, then the time. Raises Refused beyond the calendar."""
    try:
        moment = _months_later(start, years * 12 + months) + timedelta(weeks=weeks, days=days)
        moment += timedelta(days=_days_of_working_days(day_of(moment), working_days))
        if not seconds:
            return moment
        if not isinstance(moment, datetime):
            moment = datetime.combine(moment, time())
        if moment.tzinfo is None:
            return moment + timedelta(seconds=seconds)
        # Hours pass in UTC, whatever clocks do.
        return (moment.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(moment.tzinfo)
    except (OverflowError, ValueError):
        raise Refused(OUTSIDE) from None


def _months_later(start: date | datetime, months: int) -> date | datetime:
    """The same day of another month, or its last one."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError
    return start.replace(year=year, month=month + 1, day=min(start.day, monthrange(year, month + 1)[1]))


def _days_of_working_days(start: date, count: int) -> int:
    """How many days the working days are, from Monday to Friday, that lie after the start, or before it."""
    if count < 0:
        # Seen in a mirror: Monday is Friday.
        return -_forward((4 - start.weekday()) % 7, -count)
    return _forward(start.weekday(), count)


def _forward(weekday: int, count: int) -> int:
    if not count:
        return 0
    weeks, rest = divmod(count, 5)
    if weekday >= 5:
        # From a weekend one counts as from the Friday before it.
        shift, weekday = weekday - 4, 4
        return weeks * 7 + rest + (2 if rest else 0) - shift
    return weeks * 7 + rest + (2 if weekday + rest > 4 else 0)


def working_days_between(start: date, end: date) -> int:
    """Mondays to Fridays after the earlier date, up to the later one with it."""
    early, late = sorted((start, end))
    weeks, rest = divmod((late - early).days, 7)
    return weeks * 5 + sum((early.weekday() + each) % 7 < 5 for each in range(1, rest + 1))


def calendar_distance(start: date, end: date) -> tuple[int, int, int]:
    """Whole years, months and days from the earlier date to the later one."""
    early, late = sorted((start, end))
    months = (late.year - early.year) * 12 + late.month - early.month
    if late < _months_later(early, months):
        months -= 1
    rest = (late - day_of(_months_later(early, months))).days
    return months // 12, months % 12, rest


def described(day: date) -> str:
    """The weekday, the date, the ISO week and the day of the year."""
    year, week, weekday = day.isocalendar()
    return f"{day:%A} {day.isoformat()}, ISO week {year:04}-W{week:02}-{weekday}, day {day.timetuple().tm_yday} of the year"


def warning(moment: datetime) -> str:
    """What is particular about a time on the clocks of its zone: it happens twice, or never."""
    first, second = moment.replace(fold=0), moment.replace(fold=1)
    if first.utcoffset() == second.utcoffset():
        return ""
    there = moment.astimezone(UTC).astimezone(moment.tzinfo).replace(tzinfo=None) == moment.replace(tzinfo=None)
    if there:
        return " The clocks show this time twice that night; the first one is meant."
    return " The clocks skip this time that night: it was read by the offset before."
