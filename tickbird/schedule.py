"""Schedules: definitions that add a job again and again, in BullMQ's own records.

Whoever takes an iteration adds the next one, in whatever language; a schedule lives by that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from redis.exceptions import RedisError

from tickbird.cron import parse_cron, zone
from tickbird.durations import Duration, parse_duration_ms
from tickbird.errors import InvalidOption
from tickbird.job import QueueRef
from tickbird.options import JobOptions, parse_options, require_job_id
from tickbird.recurrence import is_over, next_cron_ms, next_every_ms
from tickbird.storage.connection import Connection, unavailable
from tickbird.storage.keys import QueueKeys
from tickbird.storage.lanes import Lanes
from tickbird.storage.wire import (
    MAX_DATA_BYTES,
    NewJobMessage,
    TakenJob,
    encode_data,
    encode_name,
    encode_options,
    number,
    packed,
    raw_bytes,
    text,
)

logger = logging.getLogger(__name__)

MAX_LISTED = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SLOTS_TO_TRY = 32
_LOOKS = 20
_LEGACY_COLONS = 4


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed interval; at least 100 ms. `offset` shifts its slots, which are counted from 1970."""

    interval: Duration
    offset: Duration | None = None

    def __post_init__(self) -> None:
        if self.interval_ms < 100:  # noqa: PLR2004 - the docstring's
            raise InvalidOption(f"an interval must be at least 100 ms, not {self.interval!r}")
        if self.offset is not None:
            parse_duration_ms(self.offset, "offset")

    @property
    def interval_ms(self) -> int:
        """The interval in milliseconds."""
        return parse_duration_ms(self.interval, "interval")

    @property
    def offset_ms(self) -> int | None:
        """The offset in milliseconds, where one was given."""
        return None if self.offset is None else parse_duration_ms(self.offset, "offset")


@dataclass(frozen=True, slots=True)
class Cron:
    """Times by a cron pattern of 5 fields, or 6 with seconds first, in a time zone."""

    pattern: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        parse_cron(self.pattern)
        zone(self.tz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as it stands in Redis. Times are epoch milliseconds.

    `when` is None for a legacy record that can be read but not iterated. `limit` counts
    iterations in all, `iterations` those so far.
    """

    id: str
    queue: QueueRef
    name: str
    data: str
    when: Every | Cron | None
    next_run_at_ms: int | None
    iterations: int
    limit: int | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    options: str = "{}"

    def is_defined_by(self, name: str, when: Every | Cron, options: Mapping[str, Any]) -> bool:
        """Whether an upsert with these would change nothing."""
        return (
            self.name == name
            and self.next_run_at_ms is not None
            and _is_same(self.when, when)
            and msgspec.json.decode(self.options)
            == msgspec.json.decode(encode_options(_template(options)))
        )


class Schedules:
    """The schedules of one queue."""

    def __init__(
        self, queue: QueueRef, connection: Connection, lanes: Lanes, deadline_s: float
    ) -> None:
        self._queue = queue
        self._keys = QueueKeys(queue)
        self._connection = connection
        self._lanes = lanes
        self._deadline_s = deadline_s

    async def upsert(
        self,
        schedule_id: str,
        name: str,
        data: Any = msgspec.UNSET,
        *,
        when: Every | Cron,
        limit: int | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        immediately: bool = False,
        **options: Any,
    ) -> Schedule:
        """Make a schedule, or change the one of this id: its pending iteration is replaced.

        `limit` ends it after so many iterations, `end` at a time; `start` is its first possible
        time. `immediately` runs a cron schedule once now. Options: JobOptions of each iteration,
        without delay, dedup and job_id. An interval that has not changed keeps its rhythm.
        """
        require_job_id(schedule_id)
        template = _template(options)
        definition = _Definition(
            name=name,
            data=b"{}" if data is msgspec.UNSET else encode_data(data, MAX_DATA_BYTES),
            when=when,
            limit=limit,
            start_ms=_epoch_ms("start", start),
            end_ms=_epoch_ms("end", end),
            options=template,
        )
        for _ in range(_LOOKS):
            seen = await self._read(schedule_id)
            due_ms, offset_ms = _first_due(definition, seen, immediately=immediately)
            outcome = await self._write(schedule_id, definition, seen, due_ms, offset_ms)
            if outcome == 1:
                found = await self.get(schedule_id)
                if found is not None:
                    return found
        raise InvalidOption(
            f"schedule {schedule_id!r} is changed by others at this moment; try again"
        )

    async def remove(self, schedule_id: str) -> bool:
        """End a schedule; a job of it that waits or runs stays. False: there is none."""
        removed: int = await self._lanes.call(
            "remove_schedule", raw_bytes(schedule_id), deadline_s=self._deadline_s
        )
        return removed > 0

    async def get(self, schedule_id: str) -> Schedule | None:
        """A schedule by its id."""
        seen = await self._read(schedule_id)
        if not seen.record and seen.pending_ms is None:
            return None
        return _schedule(schedule_id, self._queue, seen.record, seen.pending_ms)

    async def list(self, *, offset: int = 0, limit: int = 100) -> list[Schedule]:
        """Schedules, the next to run first; at most 1,000 a call."""
        reader = self._connection.reader
        try:
            scored = await reader.zrange(
                self._keys.of("repeat"),
                offset,
                offset + max(1, min(limit, MAX_LISTED)) - 1,
                withscores=True,
            )
            pipe = reader.pipeline(transaction=False)
            for schedule_id, _ in scored:
                pipe.hgetall(self._record_key(schedule_id))
            records = await pipe.execute() if scored else []
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        return [
            _schedule(text(schedule_id), self._queue, record, int(due))
            for (schedule_id, due), record in zip(scored, records, strict=True)
        ]

    async def iterate(self, job: TakenJob) -> None:
        """Add the iteration after a taken one, where the schedule goes on."""
        schedule_id = job.schedule_id or ""
        if schedule_id.count(":") >= _LEGACY_COLONS:
            logger.warning("legacy_schedule_not_iterated queue=%s id=%s", self._queue, schedule_id)
            return
        seen = await self._read(schedule_id)
        record, now_ms = seen.record, seen.now_ms
        repeat = _repeat_of(job)
        due_ms = _due_of(job.id)
        when = _when(record, repeat)
        if not record or when is None or due_ms is None:
            return
        count = int(repeat.get("count") or 1)
        limit = _optional(record, b"limit") or repeat.get("limit")
        end_ms = _optional(record, b"endDate") or repeat.get("endDate")
        if is_over(count=count, limit=limit, now_ms=now_ms, end_ms=end_ms):
            return
        next_ms = _next_due(when, record, due_ms, now_ms)
        if next_ms is None:
            return
        message = _iteration(job, seen, repeat, next_ms)
        await self._lanes.call(
            "add_iteration",
            raw_bytes(schedule_id),
            due_ms,
            next_ms,
            msgspec.msgpack.encode(message),
            deadline_s=self._deadline_s,
        )

    async def _read(self, schedule_id: str) -> _Seen:
        pipe = self._connection.reader.pipeline(transaction=False)
        pipe.hgetall(self._record_key(raw_bytes(schedule_id)))
        pipe.zscore(self._keys.of("repeat"), raw_bytes(schedule_id))
        pipe.time()
        try:
            record, due, (seconds, micros) = await pipe.execute()
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        pending_ms = None if due is None else int(due)
        return _Seen(record, pending_ms, seconds * 1_000 + micros // 1_000)

    async def _write(
        self,
        schedule_id: str,
        definition: _Definition,
        seen: _Seen,
        due_ms: int,
        offset_ms: int,
    ) -> int:
        """Write it with the first free slot; 0 when somebody else has changed it meanwhile."""
        interval_ms = definition.when.interval_ms if isinstance(definition.when, Every) else 0
        for slot in range(_SLOTS_TO_TRY if interval_ms else 1):
            slot_ms = due_ms + slot * interval_ms
            outcome: int = await self._lanes.call(
                "upsert_schedule",
                raw_bytes(schedule_id),
                "" if seen.pending_ms is None else seen.pending_ms,
                slot_ms,
                msgspec.msgpack.encode(definition.record(offset_ms)),
                msgspec.msgpack.encode(definition.first_job(schedule_id, slot_ms, seen.now_ms)),
                deadline_s=self._deadline_s,
            )
            if outcome >= 0:
                return outcome
        raise InvalidOption(
            f"schedule {schedule_id!r} has a job for its next time already, which still runs or "
            "is kept; try again after it, or remove that job"
        )

    def _record_key(self, schedule_id: bytes) -> bytes:
        return self._keys.of("repeat:").encode() + schedule_id


@dataclass(frozen=True, slots=True)
class _Seen:
    """A schedule's record and pending due time as they were at a moment of the server's clock."""

    record: Mapping[bytes, bytes]
    pending_ms: int | None
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Definition:
    """What a caller wants a schedule to be."""

    name: str
    data: bytes
    when: Every | Cron
    limit: int | None
    start_ms: int | None
    end_ms: int | None
    options: JobOptions

    def __post_init__(self) -> None:
        encode_name(self.name)
        if not isinstance(self.when, Every | Cron):
            raise InvalidOption(f"when must be Every(...) or Cron(...), not {self.when!r}")
        if self.limit is not None and (isinstance(self.limit, bool) or self.limit < 1):
            raise InvalidOption(f"limit must be 1 or more, not {self.limit!r}")
        if self.end_ms is not None and self.start_ms is not None and self.end_ms <= self.start_ms:
            raise InvalidOption("end must be after start")

    def repeat(self) -> dict[str, Any]:
        """The schedule as each iteration's options repeat it, without its count."""
        repeat: dict[str, Any] = {
            "limit": self.limit,
            "startDate": self.start_ms,
            "endDate": self.end_ms,
        }
        if isinstance(self.when, Every):
            repeat["every"] = self.when.interval_ms
        else:
            repeat |= {"pattern": self.when.pattern, "tz": self.when.tz}
        return {name: value for name, value in repeat.items() if value is not None}

    def record(self, offset_ms: int) -> list[msgspec.Raw]:
        """The record's fields and values in a row."""
        fields: dict[str, bytes] = {"name": encode_name(self.name)}
        fields |= {name: str(value).encode() for name, value in self.repeat().items()}
        fields["offset"] = str(offset_ms).encode()
        fields["opts"] = encode_options(self.options)
        if self.data != b"{}":
            fields["data"] = self.data
        return [packed(part) for name, value in fields.items() for part in (name.encode(), value)]

    def first_job(self, schedule_id: str, due_ms: int, now_ms: int) -> NewJobMessage:
        """The job of the first iteration."""
        stored = msgspec.json.decode(encode_options(self.options))
        stored |= _marks(schedule_id, due_ms, now_ms, with_previous=isinstance(self.when, Cron))
        stored["repeat"] = {**self.repeat(), "count": 1}
        return _message(
            schedule_id,
            name=encode_name(self.name),
            data=self.data,
            stored=stored,
            due_ms=due_ms,
            now_ms=now_ms,
        )


def _marks(schedule_id: str, due_ms: int, now_ms: int, *, with_previous: bool) -> dict[str, Any]:
    marks: dict[str, Any] = {
        "jobId": f"repeat:{schedule_id}:{due_ms}",
        "repeatJobKey": schedule_id,
        "timestamp": now_ms,
        "delay": max(0, due_ms - now_ms),
    }
    return {**marks, "prevMillis": due_ms} if with_previous else marks


def _message(
    schedule_id: str,
    *,
    name: bytes,
    data: bytes,
    stored: Mapping[str, Any],
    due_ms: int,
    now_ms: int,
) -> NewJobMessage:
    """An iteration's job as lib/add takes it."""
    return NewJobMessage(
        id=f"repeat:{schedule_id}:{due_ms}",
        name=packed(name),
        data=packed(data),
        opts=packed(msgspec.json.encode(stored)),
        delay_ms=max(0, due_ms - now_ms),
        priority=int(stored.get("priority") or 0),
        lifo=stored.get("lifo") is True,
        timestamp_ms=now_ms,
        scheduler=schedule_id,
    )


def _template(options: Mapping[str, Any]) -> JobOptions:
    for refused in ("delay", "dedup", "job_id", "timestamp_ms"):
        if refused in options:
            raise InvalidOption(f"option {refused!r} cannot be set for a schedule's jobs")
    return parse_options(options)


def _epoch_ms(option: str, moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidOption(f"{option} must be a datetime with a time zone, not {moment!r}")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _iteration(
    job: TakenJob, seen: _Seen, repeat: Mapping[str, Any], next_ms: int
) -> NewJobMessage:
    """The job after `job`: its options with new marks, the record's name and data."""
    record, schedule_id = seen.record, job.schedule_id or ""
    stored = msgspec.json.decode(job.raw_options)
    stored |= _marks(schedule_id, next_ms, seen.now_ms, with_previous="pattern" in repeat)
    stored["repeat"] = {**repeat, "count": int(repeat.get("count") or 1) + 1}
    return _message(
        schedule_id,
        name=record.get(b"name", raw_bytes(job.name)),
        # A record of this generation without data has none; an older one never had any.
        data=record.get(b"data", b"{}" if b"ic" in record else job.data),
        stored=stored,
        due_ms=next_ms,
        now_ms=seen.now_ms,
    )


def _first_due(definition: _Definition, seen: _Seen, *, immediately: bool) -> tuple[int, int]:
    """When the first iteration is due, and the offset to record."""
    record, pending_ms, now_ms = seen.record, seen.pending_ms, seen.now_ms
    when = definition.when
    if isinstance(when, Every):
        kept = number(record[b"offset"]) if b"offset" in record else None
        if pending_ms is not None and number(record.get(b"every")) == when.interval_ms:
            return pending_ms, kept if kept is not None else pending_ms % when.interval_ms
        due_ms, offset_ms = next_every_ms(
            every_ms=when.interval_ms,
            now_ms=now_ms,
            prev_ms=None,
            offset_ms=when.offset_ms,
            start_ms=definition.start_ms,
        )
        return due_ms, offset_ms if kept is None or when.offset is not None else kept
    if immediately and not record:
        return now_ms, 0
    due = next_cron_ms(
        parse_cron(when.pattern),
        now_ms=now_ms,
        prev_ms=None,
        start_ms=definition.start_ms,
        zone=zone(when.tz),
    )
    if due is None:
        raise InvalidOption(f"cron pattern {when.pattern!r} never fires")
    return due, 0


def _next_due(
    when: Every | Cron, record: Mapping[bytes, bytes], due_ms: int, now_ms: int
) -> int | None:
    start_ms = _optional(record, b"startDate")
    if isinstance(when, Every):
        offset_ms = _optional(record, b"offset")
        next_ms, _ = next_every_ms(
            every_ms=when.interval_ms,
            now_ms=now_ms,
            prev_ms=due_ms,
            offset_ms=offset_ms,
            start_ms=start_ms,
        )
        return next_ms
    return next_cron_ms(
        parse_cron(when.pattern),
        now_ms=now_ms,
        prev_ms=due_ms,
        start_ms=start_ms,
        zone=zone(when.tz),
    )


def _when(record: Mapping[bytes, bytes], repeat: Mapping[str, Any]) -> Every | Cron | None:
    """How often, by the record or else by the job; None where neither can be understood."""
    every = number(record.get(b"every")) or repeat.get("every")
    pattern = text(record.get(b"pattern", b"")) or repeat.get("pattern")
    try:
        if every:
            return Every(int(every) / 1_000)
        if pattern:
            return Cron(str(pattern), text(record.get(b"tz", b"")) or repeat.get("tz") or "UTC")
    except (InvalidOption, ValueError, TypeError):
        return None
    return None


def _is_same(known: Every | Cron | None, wanted: Every | Cron) -> bool:
    if isinstance(known, Every) and isinstance(wanted, Every):
        return known.interval_ms == wanted.interval_ms
    return known == wanted


def _repeat_of(job: TakenJob) -> dict[str, Any]:
    try:
        stored = msgspec.json.decode(job.raw_options)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    repeat = stored.get("repeat") if isinstance(stored, dict) else None
    return repeat if isinstance(repeat, dict) else {}


def _due_of(job_id: bytes) -> int | None:
    due = job_id.rpartition(b":")[2]
    return int(due) if due.isdigit() else None


def _optional(record: Mapping[bytes, bytes], field: bytes) -> int | None:
    return number(record[field]) if field in record else None


def _schedule(
    schedule_id: str, queue: QueueRef, record: Mapping[bytes, bytes], due_ms: int | None
) -> Schedule:
    return Schedule(
        id=schedule_id,
        queue=queue,
        name=text(record.get(b"name", b"")),
        data=text(record.get(b"data", b"{}")),
        when=_when(record, {}),
        next_run_at_ms=due_ms,
        iterations=number(record.get(b"ic")),
        limit=_optional(record, b"limit"),
        start_ms=_optional(record, b"startDate"),
        end_ms=_optional(record, b"endDate"),
        options=text(record.get(b"opts", b"{}")),
    )
