"""The clock: the time now, arithmetic on dates, weekdays and weeks, and time zones."""

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Annotated

from pydantic import Field

from cappella.tools.builtin import dates
from cappella.tools.builtin.base import Arguments, BuiltinServer, Refused
from cappella.tools.builtin.dates import MAX_AMOUNT

Text = Annotated[str, Field(max_length=60)]
Amount = Annotated[int, Field(ge=-MAX_AMOUNT, le=MAX_AMOUNT)]
Moment = Annotated[Text, Field(description="A date or a time, as 2026-03-31 or 2026-03-31 14:30")]
ZoneName = Annotated[Text, Field(description="A time zone by its name, as Europe/Berlin")]
HOLIDAYS = "Holidays are not known here."


class Now(Arguments):
    """The date and the time now, with the weekday and the ISO week."""

    time_zone: ZoneName = ""


class AboutDate(Arguments):
    """The weekday of a date, its ISO week and its day of the year, and how far it is from today."""

    date: Moment


class AddToDate(Arguments):
    """A date or time, so much later; or earlier, with negative numbers. Working days are Monday to Friday."""

    start: Moment
    years: Amount = 0
    months: Amount = 0
    weeks: Amount = 0
    days: Amount = 0
    working_days: Amount = 0
    hours: Amount = 0
    minutes: Amount = 0


class Between(Arguments):
    """How far two dates or times are apart: days, weeks, working days, years and months, and hours if they are times."""

    start: Moment
    end: Moment


class ConvertTime(Arguments):
    """A time of one time zone on the clocks of another."""

    time: Moment
    from_zone: ZoneName
    to_zone: ZoneName


class Clock(BuiltinServer[Arguments]):
    """Tells and computes times; `time_zone` is that of its own, by default the machine's."""

    def __init__(
        self, name: str, time_zone: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        super().__init__(
            name,
            {
                "now": Now,
                "about_date": AboutDate,
                "add_to_date": AddToDate,
                "time_between": Between,
                "convert_time": ConvertTime,
            },
        )
        self._time_zone = time_zone
        self._now = now

    async def _prepare(self) -> str | None:
        try:
            self._zone("")
        except Refused as error:
            return str(error)
        return None

    async def _answer(self, arguments: Arguments) -> str:
        # Every step is a few microseconds: a thread would cost more.
        try:
            return self._reply(arguments)
        except (OverflowError, ValueError):
            raise Refused(dates.OUTSIDE) from None

    def _reply(self, arguments: Arguments) -> str:
        match arguments:
            case Now():
                return self._told(self._now().astimezone(self._zone(arguments.time_zone)))
            case AboutDate():
                day = dates.day_of(dates.read(arguments.date))
                apart = (day - self._now().astimezone(self._zone("")).date()).days
                when = f"in {apart:,} days" if apart > 0 else f"{-apart:,} days ago" if apart else "today"
                return f"{dates.described(day)}; {when}"
            case AddToDate():
                return self._added(arguments)
            case Between():
                return self._between(arguments)
            case ConvertTime():
                return self._converted(arguments)
        raise Refused("There is no such tool.")

    def _zone(self, name: str) -> tzinfo | None:
        """A time zone; None is the machine's, as `astimezone` takes it."""
        chosen = name or self._time_zone
        return dates.zone(chosen) if chosen else None

    def _told(self, moment: datetime) -> str:
        """A time as text, with its zone."""
        zone = getattr(moment.tzinfo, "key", None) or moment.tzname()
        return f"{moment:%Y-%m-%d %H:%M:%S} (UTC{_offset(moment)}, {zone}); {dates.described(moment.date())}"

    def _added(self, given: AddToDate) -> str:
        seconds = given.hours * 3600 + given.minutes * 60
        moment = dates.added(
            dates.read(given.start), given.years, given.months, given.weeks, given.days, given.working_days, seconds
        )
        day = dates.described(dates.day_of(moment))
        at = f"{moment:%H:%M:%S}, {day}" if isinstance(moment, datetime) else day
        return f"{at}. {HOLIDAYS}" if given.working_days else at

    def _between(self, given: Between) -> str:
        start, end = dates.read(given.start), dates.read(given.end)
        first, last = dates.day_of(start), dates.day_of(end)
        days = (last - first).days
        years, months, rest = dates.calendar_distance(first, last)
        weeks, over = divmod(abs(days), 7)
        text = f"{abs(days):,} days" + (" back: the end is before the start" if days < 0 else "")
        text += f" ({weeks:,} weeks and {over} days; {years:,} years, {months} months and {rest} days; "
        text += f"{dates.working_days_between(first, last):,} working days after the earlier date. {HOLIDAYS})"
        if isinstance(start, datetime) and isinstance(end, datetime):
            text += f" On the clock: {self._hours(start, end)}"
        return text

    def _hours(self, start: datetime, end: datetime) -> str:
        zone = self._zone("")
        first, last = ((each if each.tzinfo else _in_zone(each, zone)).astimezone(UTC) for each in (start, end))
        seconds = round((last - first).total_seconds())
        hours, rest = divmod(abs(seconds), 3600)
        return f"{'-' * (seconds < 0)}{hours:,} h {rest // 60} min {rest % 60} s"

    def _converted(self, given: ConvertTime) -> str:
        moment = dates.read(given.time)
        if not isinstance(moment, datetime):
            raise Refused("A time of the day is needed, as 2026-03-31 14:30.")
        if moment.tzinfo is None:
            moment = _in_zone(moment, self._zone(given.from_zone))
        there = moment.astimezone(self._zone(given.to_zone))
        return self._told(there) + dates.warning(moment)


def _in_zone(moment: datetime, zone: tzinfo | None) -> datetime:
    """A time without a zone as one of a zone."""
    return moment.replace(tzinfo=zone) if zone else moment.astimezone()


def _offset(moment: datetime) -> str:
    text = f"{moment:%z}"
    return f"{text[:3]}:{text[3:5]}"
