"""Cron patterns: which times they name. Pure; schedules ask for the next time after another.

The dialect is that of Node's cron-parser, which decides the fire times of BullMQ's schedulers, so
that both sides advance one schedule alike. A table made by calling it holds us to that
(tests/unit/cron_table.json); what is odd here is odd there.

    second  0-59, may be left out: 0
    minute  0-59
    hour    0-23
    day     1-31, L = the last of its month
    month   1-12 or jan-dec
    weekday 0-7 or sun-sat (0 and 7 are Sunday), 5L = the last Friday, 5#2 = the second

`*` or `?` = any, `a-b`, `a,b`, `*/n`, `a-b/n`, `a/n` (from a to the field's end). When day and weekday
are both restricted, either will do. Fewer than five fields are the last ones, the others being any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SEARCH_YEARS = 100
"""How far the next time is looked for; a 29 February is at most 8 years away."""

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
    "@minutely": "* * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 * * 1-5",
    "@weekends": "0 0 * * 0,6",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NUMBERS = {name: str(n) for n, name in enumerate(_MONTHS, 1)} | {
    name: str(n) for n, name in enumerate(_WEEKDAYS)
}
_NAME = re.compile(r"[a-z]{3}", re.ASCII | re.IGNORECASE)
_LEADING_DIGITS = re.compile(r"\d+", re.ASCII)
_LAST = re.compile(r"\d{0,2}L", re.ASCII)
_FIXED_OFFSET = re.compile(r"utc(?:([+-])(\d{1,2})(?::(\d{2}))?)?", re.ASCII | re.IGNORECASE)
_NO_PLACE = re.compile(r"posix/.*|right/.*|posixrules|localtime|Factory")
_HOURS_A_DAY = 24
_MOST_NTH = 5


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    takes: re.Pattern[str]


_PLAIN = re.compile(r"[\d,*/?-]+", re.ASCII)
_WITH_LAST = re.compile(r"[\d,*/?L-]+", re.ASCII)
_SECOND, _MINUTE = _Field("second", 0, 59, _PLAIN), _Field("minute", 0, 59, _PLAIN)
_HOUR, _DAY = _Field("hour", 0, 23, _PLAIN), _Field("day of month", 1, 31, _WITH_LAST)
_MONTH, _WEEKDAY = _Field("month", 1, 12, _PLAIN), _Field("day of week", 0, 7, _WITH_LAST)
_FIELDS = (_SECOND, _MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)
