"""Every exception Tickbird raises.

TickbirdError
├── InvalidOption (also ValueError)   an option, name, id or payload we refuse; nothing was stored
│   └── DataTooLarge                  the payload is over the size limit
├── InvalidUrl (also ValueError)      a Redis URL we cannot read
├── RedisUnavailable                  no server answers, or it refuses us
│   └── UnsupportedServer             it answers, and must not be used (too old, evicting)
├── QueueFull                         Redis is at its memory limit: nothing was added
├── OutcomeUnknown                    a call's reply was lost and could not be learned in time
├── QueueInUse                        a queue that is not paused, or works, is not obliterated
├── LockLost                          another worker may own the job now
├── JobNotFound                       no such job: it was removed, or never was
├── UnknownTask                       a job names a task this worker does not have
├── UndecodableData                   a job's data is not what the task can take
├── JobFailed                         raised to who waits for a result: the job failed for good
├── JobTimeout (also TimeoutError)    an attempt ran longer than it may; a wait for a result ended
└── JobCancelled                      the job was cancelled by someone
Steering                              what a task raises to steer its job:
├── DoNotRetry                        fail for good, whatever attempts remain
├── RetryLater                        run again after a delay; the attempt counts as made
├── Postpone                          run again after a delay; no attempt is spent
├── PutBack                           back to the front of the queue; no attempt is spent
├── RateLimited                       the same, and no job of the queue starts for a while
└── WaitForChildren                   wait for the children it has added, then run again
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class TickbirdError(Exception):
    """The root of everything Tickbird raises on its own account."""


class InvalidOption(TickbirdError, ValueError):
    """An option, a name, an id or a payload is refused; nothing was stored."""


class DataTooLarge(InvalidOption):
    """A payload is larger than the limit it was checked against."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"job data has {size_bytes:,} bytes, the limit is {limit_bytes:,}; "
            "store it elsewhere and add a reference, or raise the limit (max_data_bytes)"
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class InvalidUrl(TickbirdError, ValueError):
    """A Redis URL cannot be understood."""


class RedisUnavailable(TickbirdError):
    """No server answers under the URL, or it refuses us."""


class UnsupportedServer(RedisUnavailable):
    """The server answers, and jobs would not be safe on it."""


class QueueFull(TickbirdError):
    """Redis is at its memory limit: the add was refused and nothing was stored."""


class OutcomeUnknown(TickbirdError):
    """A writing call was sent, and no reply says whether it took effect.

    `retry()` sends the very same call again: within 24 hours the server answers
    what happened the first time, so that nothing is done twice.
    """

    def __init__(self, message: str, resend: Callable[[], Awaitable[object]]) -> None:
        super().__init__(message)
        self._resend = resend

    async def retry(self) -> object:
        """Send the call again and return what it returns, exactly once in effect."""
        return await self._resend()


class QueueInUse(TickbirdError):
    """The queue is not paused, or jobs of it are running: it is not obliterated."""


class LockLost(TickbirdError):
    """Another worker may own the job now; this attempt must not write its outcome."""


class JobNotFound(TickbirdError):
    """There is no such job: it was removed, or never was."""


class UnknownTask(TickbirdError):
    """A job names a task that this worker's app does not define."""


class UndecodableData(TickbirdError):
    """A job's data is not JSON, or does not fit its task's parameters."""


class JobFailed(TickbirdError):
    """The job someone waits for has failed for good; the message is its reason."""


class JobTimeout(TickbirdError, TimeoutError):
    """An attempt ran longer than it may, or a wait for a result ended without one."""


class JobCancelled(TickbirdError):
    """The job was cancelled by someone; the message is their reason."""


class Steering(Exception):
    """The root of what a task raises to steer its own job."""


class DoNotRetry(Steering):
    """Fail the job for good, whatever attempts remain: it becomes a dead letter."""


class RetryLater(Steering):
    """Run the job again after `delay` (a duration); the attempt counts as made."""

    def __init__(self, delay: str | float, reason: str = "") -> None:
        super().__init__(reason or f"asked to run again in {delay}")
        self.delay = delay


class Postpone(Steering):
    """Run the job again after `delay` (a duration); no attempt is spent."""

    def __init__(self, delay: str | float) -> None:
        super().__init__(f"asked to run again in {delay}")
        self.delay = delay


class PutBack(Steering):
    """Put the job back to the front of its queue; no attempt is spent."""


class RateLimited(Steering):
    """Put the job back, and start no job of a rate-limited queue for `delay` (a duration).

    Only workers that have a rate limit look at it, as BullMQ's do: set one on the queue or the
    worker. No attempt is spent.
    """

    def __init__(self, delay: str | float) -> None:
        super().__init__(f"rate limited for {delay}")
        self.delay = delay


class WaitForChildren(Steering):
    """Wait for the children this job has added while it ran, then run it again from its start.

    With none pending it goes on at once. No attempt is spent.
    """
