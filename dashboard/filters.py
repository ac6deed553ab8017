"""How templates turn values into text: numbers, durations, times, and strings from strangers."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dashboard.views import Measure

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = "\N{EN DASH}"
_LATEST_MS = 253_402_300_799_000
"""31 December 9999, where datetime ends."""

LONGEST_MS = 100 * 365 * 86_400_000
"""A longer duration is nobody's meaning: a century."""

_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u115f\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Text with its invisible and disruptive characters made visible, so that it stays text.

    Controls and bytes that were no UTF-8 become `\xNN`; lone surrogates, blanks without a
    width and what turns the reading direction `\uNNNN`. Newline, tab and return stay.
    """
    return _ODD.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 - surrogateescape
        code -= 0xDC00
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004 - one byte


def printable(text: str) -> str:
    """For a log line: one line, whatever the text holds."""
    return text.encode("unicode_escape", errors="surrogatepass").decode("ascii")[:1_000]


def finalize(value: Any) -> Any:
    """Applied by Jinja to every value it prints: no text reaches a page unseen."""
    if isinstance(value, Markup):
        return value
    return visible(value) if isinstance(value, str) else value


def number(value: float | None) -> str:
    """A whole number with thin groups of three: 18,204."""
    return NOTHING if value is None else f"{round(value):,}"


def rate(value: float | None) -> str:
    """A rate: one decimal below ten, whole above; never "0.0"."""
    if value is None:
        return NOTHING
    if value == 0 or value >= 10:  # noqa: PLR2004 - two digits are enough precision
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.1 else "<0.1"  # noqa: PLR2004 - one decimal


def percent(value: float | None) -> str:
    """A share as a number of percent without its sign: 0.061 -> 6.1."""
    if value is None:
        return NOTHING
    hundredths = value * 100
    if hundredths == 0 or hundredths >= 99.95:  # noqa: PLR2004 - rounds to 100
        return f"{hundredths:.0f}"
    return f"{hundredths:.1f}" if hundredths >= 0.1 else "<0.1"  # noqa: PLR2004 - one decimal


def measure_ms(ms: float | None) -> Measure:
    """A duration for people: 380 ms, 4.9 s, 4 min 31 s, 3 h 12 min, 2 d 4 h."""
    if ms is None or ms > LONGEST_MS:
        return Measure(NOTHING, "")
    ms = max(0.0, ms)
    seconds = ms / 1_000
    match seconds:
        case _ if ms < 1:
            return Measure("<1" if ms else "0", "ms")
        case _ if ms < 999.5:  # noqa: PLR2004 - rounds to a second
            return Measure(f"{ms:.0f}", "ms")
        case _ if seconds < 9.95:  # noqa: PLR2004 - one decimal up to ten
            return Measure(f"{seconds:.1f}", "s")
        case _ if seconds < 59.5:  # noqa: PLR2004 - rounds to a minute
            return Measure(f"{seconds:.0f}", "s")
    return _two_units(round(seconds))


def _two_units(seconds: int) -> Measure:
    for big, small, size in (("min", "s", 60), ("h", "min", 3_600), ("d", "h", 86_400)):
        part = {"s": 1, "min": 60, "h": 3_600}[small]
        if seconds < size * (24 if big == "h" else 60) or big == "d":
            whole, rest = divmod(seconds, size)
            if rest // part and whole < 100:  # noqa: PLR2004 - then the rest says nothing
                return Measure(f"{whole} {big} {rest // part}", small)
            return Measure(f"{whole:,}", big)
    raise AssertionError(seconds)


def duration(ms: float | None) -> str:
    """A duration in milliseconds as text."""
    return str(measure_ms(ms))


def ago(at_ms: int | None, now_ms: int) -> str:
    """How long before (or after) now a time is: "12 s ago", "in 4 min 3 s", "now"."""
    if not is_time(at_ms):
        return "unknown"
    away = now_ms - (at_ms or 0)
    if abs(away) < 1_000:  # noqa: PLR2004 - a second
        return "now"
    seconds = abs(away) // 1_000
    whole = f"{seconds} s" if seconds < 10 else duration(seconds * 1_000)  # noqa: PLR2004 - no "7.0 s ago"
    return f"{whole} ago" if away > 0 else f"in {whole}"


def is_time(at_ms: int | None) -> bool:
    """Whether epoch milliseconds are a time somebody can have meant."""
    return at_ms is not None and 0 < at_ms <= _LATEST_MS


def iso(at_ms: int | None) -> str:
    """ISO 8601 in UTC with milliseconds, for <time datetime> and titles; "unknown" if it is none."""
    if not is_time(at_ms):
        return "unknown"
    when = datetime.fromtimestamp((at_ms or 0) / 1_000, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{(at_ms or 0) % 1_000:03d}Z"


def clock(at_ms: int | None) -> str:
    """The time of day in UTC: 14:02:11."""
    return iso(at_ms)[11:19] if is_time(at_ms) else "unknown"


def size(count: float | None) -> Measure:
    """Bytes for people: 312 MB, 4.2 kB."""
    if count is None:
        return Measure(NOTHING, "")
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1_000:  # noqa: PLR2004 - the step of decimal units
            return Measure(f"{value:.0f}" if unit == "B" or value >= 10 else f"{value:.1f}", unit)  # noqa: PLR2004
        value /= 1_000
    return Measure(f"{value:.1f}", "TB")


def ordinal(value: int) -> str:
    """1st, 2nd, 3rd, 4th."""
    last_two = value % 100
    suffix = "th" if 11 <= last_two <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")  # noqa: PLR2004
    return f"{value:,}{suffix}"


def named(text: str) -> str:
    """A name as it can be read and clicked: never empty."""
    return text if text.strip() else "unnamed"


def plural(count: int, noun: str, many: str = "") -> str:
    """A count with its noun: "1 job", "2 jobs"."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def cut(text: str, limit: int = 80) -> str:
    """At most `limit` characters of one line; a cut is marked."""
    line = " ".join(text[: limit * 4].split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


FILTERS: dict[str, Callable[..., Any]] = {
    "ago": ago,
    "clock": clock,
    "cut": cut,
    "duration": duration,
    "iso": iso,
    "measure": measure_ms,
    "named": named,
    "number": number,
    "ordinal": ordinal,
    "percent": percent,
    "plural": plural,
    "rate": rate,
    "size": size,
}
