"""Cron patterns: the times they name. Pure; recurrence.py asks for the next one.

The dialect is that of Node's cron-parser, because it decides when BullMQ's schedulers fire and a
schedule may be advanced by either side. A table made by calling that parser holds us to it
(tests/unit/cron_table.json): what looks odd here is odd there.

    second   0-59, may be left out (then 0)
    minute   0-59
    hour     0-23
    day      1-31; L: the month's last
    month    1-12 or jan-dec
    weekday  0-7 or sun-sat, 0 and 7 are Sunday; 5L: the month's last Friday; 5#2: its second

In each: * or ? (any), a-b, a/n (from a on, each n-th), a-b/n, */n, and lists of these with commas.
When day and weekday are both restricted, either suffices. A pattern of fewer than five fields has
the last ones; those before are any. `H` is refused: cron-parser draws it anew at each call.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from difflib import get_close_matches
from functools import cache, partial
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from tickbird.errors import InvalidOption

SEARCH_YEARS = 100
"""How far ahead a time is looked for; five Fridays in a February may be 40 years away."""

_ALIASES = {
    "@secondly": "* * * * * *",
    "@minutely": "* * * * *",
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@weekdays": "0 0 * * 1-5",
    "@weekends": "0 0 * * 0,6",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LEFT_OUT = ("0", "*", "*", "*", "*", "*")
_ANY = ("*", "?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NUMBERS = {name: n for n, name in enumerate(_MONTHS, 1)} | {
    name: n for n, name in enumerate(_WEEKDAYS)
}
_NAME = re.compile(r"[a-z]{3}", re.ASCII | re.IGNORECASE)
_DIGITS = re.compile(r"\d+", re.ASCII)
_LAST = re.compile(r"\d{0,2}L", re.ASCII)
_NTH = re.compile(r"0*[1-5]", re.ASCII)
_PLAIN = re.compile(r"[\d,*/?-]+", re.ASCII)
_WITH_LAST = re.compile(r"[\dL,*/?-]+", re.ASCII)

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what clocks on a wall show has no zone
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_HOUR_S = 3_600
_HOURS_A_DAY = 24
_LEAP_YEAR = 2024
_LONGEST = 1_000

_LONGEST_ZONE = 64
_FIXED_OFFSET = re.compile(r"utc(?:([+-])(\d{1,2})(?::(\d\d))?)?", re.ASCII | re.IGNORECASE)
_NO_PLACE = re.compile(r"(posix|right)/.*|posixrules|localtime|Factory")

_T = TypeVar("_T", int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronPattern:
    """A pattern that was understood; parse_cron makes it. Its fields are what each one names."""

    text: str
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    days: frozenset[int]
    last_day: bool
    any_day: bool
    weekdays: frozenset[int]
    last_weekdays: frozenset[int]
    nth: int | None
    any_weekday: bool

    def next_ms(self, after_ms: int, zone: tzinfo) -> int | None:
        """The first time later than `after_ms`, epoch milliseconds; None: not in a hundred years.

        Where clocks go forward, runs of a skipped hour come in the hour after the gap, unless the
        gap begins a day. Where they go back, an hour that comes twice counts twice in patterns of
        all 24 hours, else once (but again in a search that begins within its second pass).
        """
        try:
            return self._search(after_ms, zone)
        except (OverflowError, ValueError):  # beyond the calendar, which ends with the year 9999
            return None

    def _search(self, after_ms: int, zone: tzinfo) -> int | None:
        after_s, fraction = divmod(after_ms, 1_000)
        place = _Place(after_s, zone)
        if fraction:
            place.to_next_second()
        last_year = place.wall.year + SEARCH_YEARS
        while place.wall.year <= last_year:
            if self._moves(place):
                continue
            if place.epoch_s > after_s:
                return place.epoch_s * 1_000
            place.to_next_second()
        return None

    def names_day(self, day: date) -> bool:
        """Whether the pattern names this day, its month aside."""
        if self.any_day and self.any_weekday:
            return True
        return (not self.any_day and self._names_day_of_month(day)) or (
            not self.any_weekday and self._names_weekday(day)
        )

    def _names_day_of_month(self, day: date) -> bool:
        return day.day in self.days or (self.last_day and day.day == _days_in_month(day))

    def _names_weekday(self, day: date) -> bool:
        weekday = day.isoweekday() % 7
        if weekday in self.weekdays and self.nth in (None, (day.day + 6) // 7):
            return True
        return weekday in self.last_weekdays and day.day > _days_in_month(day) - 7

    def _names_hour(self, place: _Place) -> bool:
        hour = place.wall.hour
        if hour == place.repeated_hour and len(self.hours) < _HOURS_A_DAY:
            return False
        return hour in self.hours or any(skipped in self.hours for skipped in place.skipped_hours)

    def _moves(self, place: _Place) -> bool:
        """Move on to where the first field that does not fit might; False: all fit here."""
        wall = place.wall
        if wall.month not in self.months:
            place.to_next_month()
        elif not self.names_day(wall):
            self._leave_day(place)
        elif not self._names_hour(place):
            self._leave_hour(place)
        elif (minute := _first_from(wall.minute, self.minutes)) != wall.minute:
            if minute is None:
                self._to_next_hour(place)
            else:
                place.to_wall(wall.replace(minute=minute, second=0))
        elif (second := _first_from(wall.second, self.seconds)) != wall.second:
            if second is None:
                place.to_next_minute()
            else:
                place.to_wall(wall.replace(second=second))
        else:
            return False
        return True

    def _leave_day(self, place: _Place) -> None:
        day, last = place.wall, _days_in_month(place.wall)
        while day.day < last and not self.names_day(day + _DAY):
            day += _DAY
        if day != place.wall:
            place.to_wall(day.replace(hour=0, minute=0, second=0))
        if place.wall.day == day.day:  # else a zone has left this day out
            place.to_next_day()

    def _leave_hour(self, place: _Place) -> None:
        if place.repeated_hour == place.wall.hour:
            place.repeated_hour = None
        hour = _first_from(place.wall.hour + 1, self.hours)
        if hour is None:
            place.to_next_day()
        elif not place.to_hour_by_steady_clocks(hour):
            self._to_next_hour(place)

    def _to_next_hour(self, place: _Place) -> None:
        before_s, before_hour = place.epoch_s, place.wall.hour
        place.to_next_hour()
        if place.wall.hour == before_hour or self._names_hour(place):
            place.to_wall(place.wall.replace(minute=self.minutes[0]))
        if place.epoch_s <= before_s:
            # Clocks that go back amid an hour; cron-parser gives up here or runs in a circle.
            place.go_to(before_s + _HOUR_S)


class _Place:
    """Where a search has come to: an instant, and what the clocks on the wall show at it."""

    __slots__ = ("_offset", "_skipped", "_zone", "epoch_s", "repeated_hour", "wall")

    def __init__(self, epoch_s: int, zone: tzinfo) -> None:
        self._zone = zone
        self._skipped: tuple[int, tuple[int, ...]] = (0, ())
        self.repeated_hour: int | None = None
        self.go_to(epoch_s)

    @property
    def skipped_hours(self) -> tuple[int, ...]:
        """Hours that clocks going forward left out just before this one."""
        after, hours = self._skipped
        return hours if self.wall.hour == after else ()

    def go_to(self, epoch_s: int) -> None:
        """To an instant."""
        moment = datetime.fromtimestamp(epoch_s, self._zone)
        self.epoch_s = epoch_s
        self._offset = moment.utcoffset() or timedelta()
        self.wall = moment.replace(tzinfo=None, fold=0)

    def to_wall(self, wall: datetime) -> None:
        """To a time on the wall; of two, the one in today's offset; in a gap, on by its length."""
        self.go_to((wall - self._offset - _EPOCH) // _SECOND)
        if self.wall != wall:
            self.go_to(int(wall.replace(tzinfo=self._zone).timestamp()))

    def to_next_month(self) -> None:
        """To midnight of the next month's first day."""
        self.to_wall((self.wall.replace(day=1) + timedelta(days=31)).replace(day=1))
        self._to_midnight()

    def to_next_day(self) -> None:
        """To the next midnight; the second one, where clocks go back over it."""
        self.to_wall(self.wall + _DAY)
        self._to_midnight()

    def _to_midnight(self) -> None:
        self.to_wall(self.wall.replace(hour=0, minute=0, second=0))

    def to_hour_by_steady_clocks(self, hour: int) -> bool:
        """To a later hour of the day, if no clock is changed until that hour is over."""
        start_s, offset = self.epoch_s, self._offset
        self.to_wall(self.wall.replace(hour=hour, minute=0, second=0))
        end = datetime.fromtimestamp(self.epoch_s + _HOUR_S, self._zone)
        if self._offset == offset == end.utcoffset():
            return True
        self.go_to(start_s)
        return False

    def to_next_hour(self) -> None:
        """To the start of the clocks' hour in which an hour from now lies."""
        before = self.wall
        self.go_to(self.epoch_s + _HOUR_S)
        self.to_wall(self.wall.replace(minute=0, second=0))
        self._note_change(before)

    def to_next_minute(self) -> None:
        """To the next full minute."""
        before = self.wall
        self.go_to(self.epoch_s + 60)
        self.to_wall(self.wall.replace(second=0))
        self._note_change(before)

    def to_next_second(self) -> None:
        """One second on."""
        before = self.wall
        self.go_to(self.epoch_s + 1)
        self._note_change(before)

    def _note_change(self, before: datetime) -> None:
        """Note which hour comes again, or which were left out, if clocks changed on this step."""
        hours = (self.wall.hour - before.hour) % _HOURS_A_DAY
        if hours == 0 and self.wall <= before and self.wall.minute == 0:
            self.repeated_hour = self.wall.hour
        if 1 < hours < _HOURS_A_DAY // 2:
            left_out = tuple((before.hour + n) % _HOURS_A_DAY for n in range(1, hours))
            self._skipped = (self.wall.hour, left_out)


def parse_cron(pattern: str) -> CronPattern:
    """Understand a pattern; InvalidOption names the field that is wrong and what it may be."""
    if len(pattern) > _LONGEST:
        raise InvalidOption(
            f"a cron pattern may have {_LONGEST:,} characters, not {len(pattern):,}"
        )
    given = _ALIASES.get(pattern, pattern).split()
    if not 1 <= len(given) <= len(_LEFT_OUT):
        raise InvalidOption(
            f"cron pattern {pattern!r} must have 5 fields (minute, hour, day, month, weekday), "
            "or 6 with the second first"
        )
    texts = [*_LEFT_OUT[: -len(given)], *given]
    texts[-1], nth = _split_nth(texts[-1])
    seconds, minutes, hours, days, months, weekdays = (
        _parse_field(field, text) for field, text in zip(_FIELDS, texts, strict=True)
    )
    cron = CronPattern(
        text=pattern,
        seconds=tuple(sorted(seconds.numbers)),
        minutes=tuple(sorted(minutes.numbers)),
        hours=tuple(sorted(hours.numbers)),
        months=frozenset(months.numbers),
        days=frozenset(days.numbers),
        last_day="L" in days.text,
        any_day=days.text in _ANY,
        weekdays=frozenset(weekdays.numbers),
        last_weekdays=frozenset(int(last[0]) % 7 for last in weekdays.lasts),
        nth=nth,
        any_weekday=weekdays.text in _ANY and nth is None,
    )
    _require_a_day(cron)
    return cron


def zone(name: str) -> tzinfo:
    """The time zone of an IANA name such as Europe/Berlin (in any case), UTC or UTC+5:30."""
    if len(name) > _LONGEST_ZONE:
        raise InvalidOption(
            f"a time zone's name may have {_LONGEST_ZONE} characters, not {len(name):,}"
        )
    fixed = _FIXED_OFFSET.fullmatch(name)
    if fixed is not None:
        return _fixed_offset(fixed)
    try:
        if not _NO_PLACE.fullmatch(name):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name is a folder's
        pass
    known = _zones_by_lower_name()
    if not known:
        raise InvalidOption(
            f"time zone {name!r} cannot be used: this machine has no time zone data; "
            "install the system's tzdata, or the Python package tzdata"
        )
    if name.lower() in known:
        return ZoneInfo(known[name.lower()])
    near = get_close_matches(name.lower(), known, n=1)
    hint = f", did you mean {known[near[0]]!r}?" if near else ""
    raise InvalidOption(f"unknown time zone {name!r}{hint}")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    takes: re.Pattern[str]
    allowed: str

    def refusal(self, what: str) -> InvalidOption:
        return InvalidOption(f"cron {self.name} {what}; it may be {self.allowed}")


@dataclass(frozen=True, slots=True)
class _Named:
    """What a field's text names; `lasts` are the parts of it that end in L."""

    text: str
    numbers: set[int]
    lasts: set[str]


_MONTH = _Field("month", 1, 12, _PLAIN, "1-12 or jan-dec")
_WEEKDAY = _Field("day of week", 0, 7, _WITH_LAST, "0-7 or sun-sat, 5L (last) or 5#1 to 5#5 (n-th)")
_FIELDS = (
    _Field("second", 0, 59, _PLAIN, "0-59"),
    _Field("minute", 0, 59, _PLAIN, "0-59"),
    _Field("hour", 0, 23, _PLAIN, "0-23"),
    _Field("day of month", 1, 31, _WITH_LAST, "1-31 or L (the last)"),
    _MONTH,
    _WEEKDAY,
)


def _split_nth(text: str) -> tuple[str, int | None]:
    weekday, mark, nth = text.partition("#")
    if not mark:
        return text, None
    if not _NTH.fullmatch(nth) or set(",-/") & set(text):
        raise _WEEKDAY.refusal(f"cannot be {text!r}")
    return weekday, int(nth)


def _parse_field(field: _Field, text: str) -> _Named:
    """What one field names. As in cron-parser, `*` and `?` stand for the text of the full range."""
    spelled = _NAME.sub(partial(_number_of, field), text) if field in (_MONTH, _WEEKDAY) else text
    if not field.takes.fullmatch(spelled):
        raise field.refusal(f"cannot be {text!r}")
    for any_mark in _ANY:
        spelled = spelled.replace(any_mark, f"{field.low}-{field.high}")
    named = _Named(text, set(), set())
    for part in spelled.split(","):
        if _LAST.fullmatch(part) and (field is not _WEEKDAY or part != "L"):
            _add(named.lasts, {part}, field)
        else:
            numbers = _numbers(field, part)
            _add(
                named.numbers,
                {n % 7 for n in numbers} if field is _WEEKDAY else set(numbers),
                field,
            )
    return named


def _number_of(field: _Field, name: re.Match[str]) -> str:
    number = _NUMBERS.get(name[0].lower())
    if number is None:
        raise field.refusal(f"knows no name {name[0]!r}")
    return str(number)


def _add(named: set[_T], more: set[_T], field: _Field) -> None:
    if named & more:
        raise field.refusal(f"names {min(named & more)} twice")
    named |= more


def _numbers(field: _Field, part: str) -> range:
    span, *steps = part.split("/")
    low, *highs = span.split("-")
    if not highs and not steps:
        first = last = int(low) if _DIGITS.fullmatch(low) else -1
    else:
        first = _leading_number(low)
        last = _leading_number(highs[0]) if highs else field.high
    if not field.low <= first <= last <= field.high:
        raise field.refusal(f"cannot be {part!r}")
    step = _leading_number(steps[0]) if steps else 1
    if len(steps) > 1 or step < 1:
        raise field.refusal(f"cannot have the step of {part!r}")
    return range(first, last + 1, step)


def _leading_number(text: str) -> int:
    """The number a text begins with, as JavaScript's parseInt reads it; -1: none."""
    digits = _DIGITS.match(text)
    return int(digits[0]) if digits else -1


def _require_a_day(cron: CronPattern) -> None:
    if cron.any_weekday and not any(
        cron.names_day(date(_LEAP_YEAR, month, day))
        for month in cron.months
        for day in range(1, monthrange(_LEAP_YEAR, month)[1] + 1)
    ):
        raise InvalidOption(f"cron pattern {cron.text!r} never fires: no such day in its months")


def _first_from(low: int, values: tuple[int, ...]) -> int | None:
    at = bisect_left(values, low)
    return values[at] if at < len(values) else None


def _days_in_month(day: date) -> int:
    return monthrange(day.year, day.month)[1]


def _fixed_offset(match: re.Match[str]) -> tzinfo:
    sign, hours, minutes = match.groups()
    if sign is None:
        return UTC
    offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
    if offset >= _DAY:
        raise InvalidOption(f"time zone {match[0]!r} must be less than 24 hours from UTC")
    return timezone(-offset if sign == "-" else offset)


@cache
def _zones_by_lower_name() -> dict[str, str]:
    return {name.lower(): name for name in available_timezones() if not _NO_PLACE.fullmatch(name)}
