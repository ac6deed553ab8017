"""Durations as users write them, parsed once at the border."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from tickbird.errors import InvalidOption

Duration = str | int | float | timedelta
"""Text with its unit ("250ms", "30s", "10m", "2h", "1d"), a number of seconds, or a timedelta."""

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)\s*", re.ASCII)
_LONGEST_MS = 10 * 365 * 86_400_000


def parse_duration_ms(value: Duration, option: str) -> int:
    """The duration in whole milliseconds; `option` names it in the error.

    Raises InvalidOption for anything negative, not finite, over ten years, or
    text without a known unit.
    """
    ms = _to_ms(value, option)
    if not math.isfinite(ms) or not 0 <= ms <= _LONGEST_MS:
        raise InvalidOption(f"{option} must be between 0 and ten years, not {value!r}")
    return round(ms)


def _to_ms(value: Duration, option: str) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds() * 1_000
    if isinstance(value, str):
        match = _PATTERN.fullmatch(value)
        if match is None:
            raise InvalidOption(
                f"{option} must be a duration such as '250ms', '30s', '10m', '2h' or '1d', "
                f"or a number of seconds, not {value!r}"
            )
        return float(match[1]) * _UNITS_MS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f"{option} must be a duration, not {value!r}")
    return value * 1_000
