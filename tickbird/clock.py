"""The only place that asks this machine for the time; tests hand in a clock they move."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What code that depends on time takes as an argument."""

    def now_ms(self) -> int:
        """Wall clock, epoch milliseconds."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""


class SystemClock:
    """The clock of this machine."""

    def now_ms(self) -> int:
        """Wall clock, epoch milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        return time.monotonic()
