"""When a failed attempt is made again: pure decisions over plain values."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tickbird.durations import Duration, parse_duration_ms
from tickbird.errors import InvalidOption

Rand = Callable[[], float]
"""A source of numbers in [0, 1)."""

MAX_ATTEMPTS = 1_000_000
_LONGEST_DELAY_MS = 10 * 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before the next attempt, with BullMQ's two kinds and meanings.

    `jitter` (0..1) is the random share of the delay: with 0.5 the delay is
    between half of it and all of it, so that jobs which failed together do not
    come back together.
    """

    type: Literal["fixed", "exponential"] = "exponential"
    delay: Duration = "1s"
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.type not in ("fixed", "exponential"):
            raise InvalidOption(f"backoff type must be 'fixed' or 'exponential', not {self.type!r}")
        if not isinstance(self.jitter, int | float) or not 0 <= self.jitter <= 1:
            raise InvalidOption(f"backoff jitter must be between 0 and 1, not {self.jitter!r}")
        parse_duration_ms(self.delay, "backoff delay")

    @property
    def base_ms(self) -> int:
        """The delay after the first failure, without jitter."""
        return parse_duration_ms(self.delay, "backoff delay")


OwnBackoff = Callable[[int, BaseException], Duration | None]
"""Given the failed attempt (1 = the first) and its error, the delay; None: do not retry."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a job is tried: `attempts` in all, the first included.

    `backoff` is a Backoff, or a function of your own; the latter is applied by Tickbird's workers,
    others wait one second. `on`: only these errors are worth another attempt; `give_up`: these are
    not, whatever `on` says.
    """

    attempts: int = 3
    backoff: Backoff | OwnBackoff = field(default_factory=Backoff)
    on: tuple[type[BaseException], ...] = (Exception,)
    give_up: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if (
            isinstance(self.attempts, bool)
            or not isinstance(self.attempts, int)
            or not 1 <= self.attempts <= MAX_ATTEMPTS
        ):
            raise InvalidOption(
                f"attempts must be between 1 and {MAX_ATTEMPTS:,}, not {self.attempts!r}"
            )
        if not isinstance(self.backoff, Backoff) and not callable(self.backoff):
            raise InvalidOption(f"backoff must be a Backoff or a function, not {self.backoff!r}")

    @property
    def stored_backoff(self) -> Backoff:
        """The back-off other clients can apply."""
        return self.backoff if isinstance(self.backoff, Backoff) else Backoff("fixed", "1s", 0)

    def is_worth_it(self, error: BaseException) -> bool:
        """Whether an error is one that another attempt may cure."""
        return isinstance(error, self.on) and not isinstance(error, self.give_up)


def backoff_ms(
    kind: str, base_ms: int, jitter: float, failed_attempt: int, rand: Rand = random.random
) -> int:
    """Delay after a failed attempt (1 = the first), in milliseconds, as BullMQ computes it.

    fixed: the base; exponential: doubled per attempt. Jitter j keeps the share
    1 - j and adds a random part of the rest. A kind we do not know (another
    client's own function) counts as fixed. Never more than ten years.
    """
    delay = base_ms
    if kind == "exponential":
        delay = round(2 ** min(failed_attempt - 1, 64) * base_ms)
    delay = min(delay, _LONGEST_DELAY_MS)
    if jitter > 0:
        return int(rand() * delay * jitter + delay * (1 - jitter))
    return delay
