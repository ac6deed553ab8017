"""Limits on how many jobs start: what is allowed. Enforced where jobs are taken (lib/take.lua)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tickbird.errors import InvalidOption

_UNITS_MS = {"s": 1_000, "sec": 1_000, "min": 60_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WRITTEN = re.compile(r"\s*(\d+)\s*/\s*(\d*)\s*(s|sec|min|m|h|d)\s*", re.ASCII)
MAX_STARTS = 2**31
MAX_WINDOW_MS = _UNITS_MS["d"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `max` starts in a window of `duration_ms`, counted over all workers of the queue.

    A window begins with its first start; so any stretch of that length may see twice as many.
    """

    max: int
    duration_ms: int

    def __post_init__(self) -> None:
        if not 1 <= self.max <= MAX_STARTS or not 1 <= self.duration_ms <= MAX_WINDOW_MS:
            raise InvalidOption(
                f"a rate limit must be 1 to {MAX_STARTS:,} starts in 1 ms to 1 day, not {self!r}"
            )

    @classmethod
    def parse(cls, written: str | RateLimit) -> RateLimit:
        """A limit as users write it: "100/s", "1000/5min", "3/h"."""
        if isinstance(written, RateLimit):
            return written
        match = _WRITTEN.fullmatch(written) if isinstance(written, str) else None
        if match is None:
            raise InvalidOption(
                f"a rate limit is written like '100/s', '1000/5min' or '3/h', not {written!r}"
            )
        return cls(int(match[1]), int(match[2] or 1) * _UNITS_MS[match[3]])
