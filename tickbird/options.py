"""What a user may say about a job when adding it: validated at the call, frozen after."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tickbird.durations import Duration, parse_duration_ms
from tickbird.errors import InvalidOption
from tickbird.retry import MAX_ATTEMPTS, Backoff

MAX_PRIORITY = 2_097_151
LAST_DUE_MS = 2**53 // 4096
"""Due times are packed into a double beside 12 bits: September 2039 is the end of them."""

MAX_DEDUP_KEY_BYTES = 512
MAX_TELEMETRY_CHARS = 8_192
_JOB_ID = re.compile(r"[!-9;-z|~]{1,128}", re.ASCII)  # printable, no space : { }
_INTEGER = re.compile(r"-?\d+", re.ASCII)
_QUEUE_NAME = re.compile(r"[!-9;-~]{1,128}", re.ASCII)
QUEUE_SUFFIXES = frozenset(
    [
        "wait",
        "paused",
        "active",
        "prioritized",
        "delayed",
        "waiting-children",
        "completed",
        "failed",
        "meta",
        "events",
        "marker",
        "stalled",
        "stalled-check",
        "limiter",
        "id",
        "pc",
        "repeat",
        "delay",
        "priority",
    ]
)


@dataclass(frozen=True, slots=True)
class Keep:
    """How many finished jobs stay, and how long: what exceeds either rule is removed.

    None means no bound of that kind. Rules act when a job finishes.
    """

    age: Duration | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.age is not None:
            parse_duration_ms(self.age, "keep age")
        if self.count is not None and (isinstance(self.count, bool) or self.count < 0):
            raise InvalidOption(f"keep count must be 0 or more, not {self.count!r}")

    @property
    def age_s(self) -> int:
        """The longest stay in whole seconds, 0 = for ever."""
        return 0 if self.age is None else parse_duration_ms(self.age, "keep age") // 1_000


KEEP_COMPLETED = Keep(age="1d", count=1_000)
KEEP_FAILED = Keep(age="14d", count=1_000_000)
DEFAULT_KEEP = {True: KEEP_COMPLETED, False: KEEP_FAILED}
"""By whether the job has completed. The very objects tell a default from a rule somebody gave."""


@dataclass(frozen=True, slots=True)
class Dedup:
    """At most one live job per key: what happens to a second add while the first one lives.

    By default the second add finds the first job, until that has finished. With `ttl` for that
    long instead, whatever becomes of the job. `extend`: each add starts the ttl anew. `replace`:
    while the first job is delayed the new one takes its place (debounce: with ttl, extend and a
    delay). `keep_last`: while it runs, the newest proposal is kept and becomes a job when it ends.
    `reschedule`: while it is delayed it gets the new one's delay.
    """

    key: str
    ttl: Duration | None = None
    extend: bool = False
    replace: bool = False
    keep_last: bool = False
    reschedule: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not 1 <= len(self.key.encode()) <= MAX_DEDUP_KEY_BYTES:
            raise InvalidOption(
                f"a dedup key must be a text of 1 to {MAX_DEDUP_KEY_BYTES} bytes, not {self.key!r}"
            )
        if self.ttl is not None and not parse_duration_ms(self.ttl, "dedup ttl"):
            raise InvalidOption("dedup ttl must be longer than 0")
        if self.extend and self.ttl is None:
            raise InvalidOption("dedup extend needs a ttl to extend")

    @property
    def ttl_ms(self) -> int:
        """The ttl in milliseconds, 0 = until the job has finished."""
        return 0 if self.ttl is None else parse_duration_ms(self.ttl, "dedup ttl")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Options of one job. Durations are seconds, text with a unit, or timedeltas.

    delay         how long before the job may start
    priority      1 (first) .. 2,097,151; 0 = none, served before all priorities
    attempts      runs allowed in all, the first included
    backoff       delay before the next attempt: a Backoff, or a duration (fixed)
    job_id        an id of your own: adding it again finds the first job
    lifo          to the front of the waiting jobs (only without priority and delay)
    keep_completed, keep_failed
                  how long the finished job stays: a Keep, a count, True (all) or
                  False (remove at once); None: the worker's rule
    dedup         at most one live job per key: a Dedup, or the key alone
    timeout       how long an attempt may run; None: the task's own, or no bound
    telemetry     a tracer's own text, carried along for whoever runs the job (8 kB at most)
    keep_logs     log lines kept, newest; None: all (at most 1,000 from our workers)
    timestamp_ms  creation time to record, epoch milliseconds; None: now
    """

    delay: Duration = 0
    priority: int = 0
    attempts: int | None = None
    backoff: Backoff | Duration | None = None
    job_id: str | None = None
    lifo: bool = False
    keep_completed: Keep | int | bool | None = None
    keep_failed: Keep | int | bool | None = None
    dedup: Dedup | None = None
    timeout: Duration | None = None
    keep_logs: int | None = None
    telemetry: str | None = None
    timestamp_ms: int | None = None

    def __post_init__(self) -> None:
        parse_duration_ms(self.delay, "delay")
        _require_int("priority", self.priority, 0, MAX_PRIORITY)
        if self.attempts is not None:
            _require_int("attempts", self.attempts, 1, MAX_ATTEMPTS)
        if self.backoff is not None and not isinstance(self.backoff, Backoff):
            parse_duration_ms(self.backoff, "backoff")
        if self.job_id is not None:
            require_job_id(self.job_id)
        if self.timestamp_ms is not None:
            _require_int("timestamp_ms", self.timestamp_ms, 1, LAST_DUE_MS - 1)
        if self.dedup is not None and not isinstance(self.dedup, Dedup):
            raise InvalidOption(f"dedup must be a Dedup or a key, not {self.dedup!r}")
        if self.timeout is not None and not parse_duration_ms(self.timeout, "timeout"):
            raise InvalidOption("timeout must be longer than 0")
        _require_telemetry(self.telemetry)
        if self.keep_logs is not None:
            _require_int("keep_logs", self.keep_logs, 0, 1_000_000)
        for option in ("keep_completed", "keep_failed"):
            keep = getattr(self, option)
            if isinstance(keep, int) and not isinstance(keep, bool):
                _require_int(option, keep, 0, 2**31)

    @property
    def delay_ms(self) -> int:
        """The delay in whole milliseconds."""
        return parse_duration_ms(self.delay, "delay")

    @property
    def timeout_ms(self) -> int | None:
        """The timeout in whole milliseconds; None: no bound of the job's own."""
        return None if self.timeout is None else parse_duration_ms(self.timeout, "timeout")


_NAMES = tuple(field.name for field in fields(JobOptions))


def parse_options(given: Mapping[str, Any]) -> JobOptions:
    """The options a caller gave by keyword; a wrong name is refused with the nearest right one."""
    for name in given:
        if name not in _NAMES:
            near = difflib.get_close_matches(name, _NAMES, n=1)
            hint = f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(_NAMES)}"
            raise InvalidOption(f"unknown option {name!r}{hint}")
    if isinstance(given.get("dedup"), str):
        given = {**given, "dedup": Dedup(given["dedup"])}
    return JobOptions(**given)


def require_job_id(job_id: str) -> None:
    """Refuse an id that some peer could not handle.

    Integers belong to the queue's counter, a colon parts keys, braces choose a
    cluster slot, and a queue's own suffix would put a job where a list belongs.
    """
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        raise InvalidOption(
            f"job_id must be 1 to 128 printable ASCII characters without space ':' '{{' '}}', "
            f"not {job_id!r}"
        )
    if _INTEGER.fullmatch(job_id):
        raise InvalidOption(f"job_id {job_id!r} is an integer: those are given by the queue")
    if job_id in QUEUE_SUFFIXES:
        raise InvalidOption(f"job_id {job_id!r} is the name of one of the queue's own keys")


def require_queue_name(name: str) -> None:
    """Refuse a queue name that would break keys or client names."""
    if not isinstance(name, str) or not _QUEUE_NAME.fullmatch(name):
        raise InvalidOption(
            "a queue's name must be 1 to 128 printable ASCII characters without space or ':', "
            f"not {name!r}"
        )


def require_prefix(prefix: str) -> None:
    """Refuse a key prefix that is empty or would collide with Tickbird's own keys."""
    if not isinstance(prefix, str) or not prefix or prefix.startswith("tickbird"):
        raise InvalidOption(
            f"a prefix must not be empty and not start with 'tickbird', not {prefix!r}"
        )


def _require_telemetry(value: object) -> None:
    if value is None or (isinstance(value, str) and len(value) <= MAX_TELEMETRY_CHARS):
        return
    raise InvalidOption(f"telemetry must be a text of at most {MAX_TELEMETRY_CHARS} characters")


def _require_int(option: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidOption(f"{option} must be between {low:,} and {high:,}, not {value!r}")
