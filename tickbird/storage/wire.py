"""The wire format: jobs and their options as Redis holds them. Nothing else knows these names.

Bytes of other clients come through here: whatever they are, decoding never raises. Ids
and texts are decoded with surrogateescape, so that every byte string survives the way back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tickbird.errors import DataTooLarge, InvalidOption
from tickbird.job import Job, JobState, JobSummary, QueueRef
from tickbird.options import Dedup, JobOptions, Keep
from tickbird.retry import Backoff

MAX_DATA_BYTES = 256 * 1024
HARD_MAX_DATA_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_NAME_BYTES = 128
DATA_START_BYTES = 200
_TEXT = re.compile(rb'"(?:\\.|[^"\\])*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

_STATE_KEYS = {
    JobState.WAITING: "wait",
    JobState.PRIORITIZED: "prioritized",
    JobState.DELAYED: "delayed",
    JobState.ACTIVE: "active",
    JobState.WAITING_CHILDREN: "waiting-children",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
}


def state_suffix(state: JobState) -> str:
    """The key suffix of the list or set that holds jobs of this state."""
    return _STATE_KEYS[state]


def text(raw: bytes) -> str:
    """Any bytes as text, reversible by `raw_bytes`."""
    return raw.decode("utf-8", "surrogateescape")


def raw_bytes(value: str) -> bytes:
    """The bytes `text` was given."""
    return value.encode("utf-8", "surrogateescape")


def packed(value: bytes) -> msgspec.Raw:
    """Bytes as a msgpack string: the scripts' decoder knows no binary type, and any bytes do."""
    return msgspec.Raw(b"\xdb" + len(value).to_bytes(4, "big") + value)


# --- adding -----------------------------------------------------------------


def encode_name(name: str) -> bytes:
    """A job name for the wire: 1 to 128 bytes of UTF-8."""
    if not isinstance(name, str) or not name:
        raise InvalidOption(f"a job's name must be a text that is not empty, not {name!r}")
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise InvalidOption(f"a job's name must be valid Unicode, not {name!r}") from error
    if len(raw) > MAX_NAME_BYTES:
        raise InvalidOption(f"a job's name has {len(raw)} bytes, the limit is {MAX_NAME_BYTES}")
    return raw


def encode_data(data: Any, limit_bytes: int = MAX_DATA_BYTES) -> bytes:
    """A payload as JSON that every client can read back.

    Refuses what is not JSON (NaN and infinities too: they would become null), nesting
    over 64 levels and anything over `limit_bytes`.
    """
    try:
        raw = msgspec.json.encode(data)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidOption(f"job data is not JSON: {error}") from error
    if len(raw) > limit_bytes:
        raise DataTooLarge(len(raw), limit_bytes)
    # Both checks walk the payload, so they run only where the text says they might find something.
    if b"null" in raw and _has_no_number(msgspec.to_builtins(data)):
        raise InvalidOption("job data is not JSON: it holds NaN or an infinity")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        raise InvalidOption(f"job data is nested deeper than {MAX_DEPTH} levels")
    return raw


def encode_result(result: Any) -> bytes:
    """A task's return value as JSON; raises InvalidOption as `encode_data` does."""
    return encode_data(result, HARD_MAX_DATA_BYTES)


def _has_no_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(_has_no_number(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_no_number(item) for item in value)
    return False


def _depth(raw: bytes) -> int:
    deepest = depth = 0
    for bracket in _BRACKET.findall(_TEXT.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def encode_options(options: JobOptions, **more: Any) -> bytes:
    """Options as stored, with BullMQ's names; `tb` marks the job as added by Tickbird.

    `more` are stored as they are: a flow's parent and flag, a schedule's marks.
    """
    stored: dict[str, Any] = {
        "delay": options.delay_ms or None,
        "priority": options.priority or None,
        "lifo": options.lifo or None,
        "jobId": options.job_id,
        "timestamp": options.timestamp_ms,
        "backoff": _stored_backoff(options.backoff),
        "removeOnComplete": _stored_keep(options.keep_completed),
        "removeOnFail": _stored_keep(options.keep_failed),
        "de": _stored_dedup(options.dedup),
        "kl": options.keep_logs,
        "tm": options.telemetry,
        "tb": {"timeout": options.timeout_ms} if options.timeout_ms else 1,
        **more,
    }
    given = {name: value for name, value in stored.items() if value is not None}
    return msgspec.json.encode({"attempts": options.attempts or 0, **given})


class NewJobMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job to add, field for field what lib/add.lua takes; what does not apply is left out."""

    id: str
    name: msgspec.Raw
    data: msgspec.Raw
    opts: msgspec.Raw
    delay_ms: int
    priority: int
    lifo: bool
    timestamp_ms: int
    prefix: str | None = None
    parent_key: str | None = None
    parent: msgspec.Raw | None = None
    dedup: dict[str, Any] | None = None
    has_children: bool = False
    scheduler: str | None = None


def new_job(options: JobOptions, name: bytes, data: bytes, **relations: Any) -> NewJobMessage:
    """The message that adds a job with these options; `relations` are the fields of a flow."""
    return NewJobMessage(
        id=options.job_id or "",
        name=packed(name),
        data=packed(data),
        opts=packed(encode_options(options, **relations.pop("stored", {}))),
        delay_ms=options.delay_ms,
        priority=options.priority,
        lifo=options.lifo,
        timestamp_ms=options.timestamp_ms or 0,
        dedup=None if options.dedup is None else _dedup_message(options.dedup),
        **relations,
    )


def _dedup_message(dedup: Dedup) -> dict[str, Any]:
    return {
        "id": dedup.key,
        "ttl_ms": dedup.ttl_ms,
        "extend": dedup.extend,
        "replace": dedup.replace,
        "keep_last": dedup.keep_last,
        "reschedule": dedup.reschedule,
    }


def _stored_dedup(dedup: Dedup | None) -> dict[str, Any] | None:
    if dedup is None:
        return None
    stored: dict[str, Any] = {"id": dedup.key}
    if dedup.ttl_ms:
        stored["ttl"] = dedup.ttl_ms
    for name, wire_name in (
        ("extend", "extend"),
        ("replace", "replace"),
        ("keep_last", "keepLastIfActive"),
        ("reschedule", "reschedule"),
    ):
        if getattr(dedup, name):
            stored[wire_name] = True
    return stored


def _stored_backoff(backoff: Any) -> dict[str, Any] | None:
    if backoff is None:
        return None
    if not isinstance(backoff, Backoff):
        backoff = Backoff("fixed", backoff, jitter=0)
    stored = {"type": backoff.type, "delay": backoff.base_ms}
    if backoff.jitter:
        stored["jitter"] = backoff.jitter
    return stored


def _stored_keep(keep: Keep | int | bool | None) -> Any:  # noqa: FBT001 - the option's own type
    if keep is None:
        return None
    if isinstance(keep, bool):
        return not keep
    if isinstance(keep, int):
        return keep
    stored: dict[str, int] = {}
    if keep.count is not None:
        stored["count"] = keep.count
    if keep.age is not None:
        stored["age"] = keep.age_s
    return stored or False


# --- taking and finishing ---------------------------------------------------


class KeepRule(msgspec.Struct, frozen=True):
    """A retention rule for the finish script: count -1 keeps all, 0 deletes the job."""

    count: int = -1
    age_s: int = 0
    limit: int = 0


class StoredOptions(msgspec.Struct, frozen=True):
    """The options of a stored job that a worker acts on, made safe."""

    attempts: int = 1
    backoff_type: str = ""
    backoff_ms: int = 0
    jitter: float = 0.0
    delay_ms: int = 0
    lifo: bool = False
    stack_traces: int | None = None
    keep_completed: KeepRule | None = None
    keep_failed: KeepRule | None = None
    timeout_ms: int | None = None
    keep_logs: int | None = None
    telemetry: str | None = None
    is_ours: bool = False
    """Added by Tickbird: the worker's own retention applies where the job has no rule."""


def decode_options(raw: bytes) -> StoredOptions:
    """Stored options; what is missing or makes no sense counts as not given."""
    try:
        stored = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return StoredOptions()
    if not isinstance(stored, dict):
        return StoredOptions()
    backoff = stored.get("backoff")
    if isinstance(backoff, int | float):
        backoff = {"type": "fixed", "delay": backoff}
    if not isinstance(backoff, dict):
        backoff = {}
    jitter = backoff.get("jitter")
    return StoredOptions(
        attempts=max(1, _whole(stored.get("attempts"), 1)),
        backoff_type=str(backoff.get("type", "")),
        backoff_ms=_whole(backoff.get("delay"), 0),
        jitter=min(1.0, max(0.0, jitter)) if isinstance(jitter, int | float) else 0.0,
        delay_ms=_whole(stored.get("delay"), 0),
        lifo=stored.get("lifo") is True,
        stack_traces=_whole(stored["stackTraceLimit"], 0) if "stackTraceLimit" in stored else None,
        keep_completed=_keep_rule(stored.get("removeOnComplete")),
        keep_failed=_keep_rule(stored.get("removeOnFail")),
        timeout_ms=_timeout_ms(stored.get("tb")),
        keep_logs=_whole(stored["kl"], 0) if "kl" in stored else None,
        telemetry=stored["tm"] if isinstance(stored.get("tm"), str) else None,
        is_ours=bool(stored.get("tb")),
    )


def _timeout_ms(ours: Any) -> int | None:
    return _whole(ours.get("timeout"), 0) or None if isinstance(ours, dict) else None


def keep_rule(keep: Keep) -> KeepRule:
    """A worker's own retention as the finish script takes it."""
    return KeepRule(count=-1 if keep.count is None else keep.count, age_s=keep.age_s)


def _keep_rule(stored: Any) -> KeepRule | None:
    if isinstance(stored, bool):
        return KeepRule(count=0) if stored else KeepRule()
    if isinstance(stored, int | float):
        return KeepRule(count=_whole(stored, -1))
    if isinstance(stored, dict):
        return KeepRule(
            count=_whole(stored["count"], -1) if "count" in stored else -1,
            age_s=_whole(stored.get("age"), 0),
            limit=_whole(stored.get("limit"), 0),
        )
    return None


def _whole(value: Any, otherwise: int) -> int:
    """A whole number not below zero, within what a double holds exactly."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    if not math.isfinite(value) or not 0 <= value < 2**53:
        return otherwise
    return int(value)


class TakenJob(msgspec.Struct, frozen=True):
    """A job as a worker takes it: raw payload, and what its attempt needs to know."""

    id: bytes
    token: bytes
    name: str
    data: bytes
    options: StoredOptions
    attempts_made: int
    stalls: int
    taken_at_ms: int
    wait_ms: int | None
    stacktrace: bytes
    deferred_failure: str | None
    attempts_started: int = 1
    schedule_id: str | None = None
    raw_options: bytes = b"{}"


def taken_job(job_id: bytes, flat: Sequence[bytes], token: bytes, taken_at_ms: int) -> TakenJob:
    """A taken job from its hash as it stood before the take."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    options = decode_options(fields.get(b"opts", b"{}"))
    deferred = fields.get(b"defa")
    return TakenJob(
        id=job_id,
        token=token,
        name=text(fields.get(b"name", b"")),
        data=fields.get(b"data", b"{}"),
        options=options,
        attempts_made=number(fields.get(b"atm")),
        stalls=number(fields.get(b"stc")),
        taken_at_ms=taken_at_ms,
        wait_ms=_wait_ms(fields, options, taken_at_ms),
        stacktrace=fields.get(b"stacktrace", b"[]"),
        deferred_failure=text(deferred) if deferred is not None else None,
        attempts_started=number(fields.get(b"ats")) + 1,
        schedule_id=_optional_text(fields.get(b"rjk")),
        raw_options=fields.get(b"opts", b"{}"),
    )


def ready_at_ms(fields: Mapping[bytes, bytes], options: StoredOptions) -> int | None:
    """Since when a waiting job could run; None where no field says it.

    Our scripts write it on every way back into the queue. A job another client put back
    after an earlier start has an older mark than that start: then nobody knows.
    """
    started_ms = number(fields.get(b"processedOn"))
    if b"tb:rdy" in fields:
        ready_ms = number(fields[b"tb:rdy"])
        return ready_ms if ready_ms >= started_ms else None
    if started_ms:
        return None
    return number(fields.get(b"timestamp")) + options.delay_ms


def _wait_ms(fields: Mapping[bytes, bytes], options: StoredOptions, taken_at_ms: int) -> int | None:
    ready_ms = ready_at_ms(fields, options)
    return None if ready_ms is None else max(0, taken_at_ms - ready_ms)


def number(raw: bytes | None) -> int:
    """Decimal text as a whole number; 0 for anything else."""
    try:
        value = float(raw or 0)
    except ValueError:
        return 0
    return int(value) if math.isfinite(value) else 0


_EMPTY = packed(b"")
DONE, LOCK_REFUSED, NOT_ACTIVE, VANISHED, CHILDREN_PENDING, CHILDREN_FAILED = range(6)
"""What the finish script answers for an ended attempt; a text is an error."""


class EndedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One ended attempt, field for field what lib/finish.lua takes."""

    id: msgspec.Raw
    token: msgspec.Raw
    outcome: str
    text: msgspec.Raw = _EMPTY
    stacktrace: msgspec.Raw = _EMPTY
    delay_ms: int = 0
    keep_count: int = -1
    keep_age_s: int = 0
    keep_limit: int = 0
    is_default_rule: bool = False
    name: msgspec.Raw = _EMPTY
    wait_bucket: int = -1
    wait_ms: int = 0
    run_bucket: int = 0
    run_ms: int = 0
    attempts: int = 1
    reason: str = ""
    lifo: bool = False
    started: bool = True

    @property
    def size_bytes(self) -> int:
        """What it weighs in a call."""
        return len(memoryview(self.text)) + len(memoryview(self.stacktrace))


# --- reading ----------------------------------------------------------------


def job_from_hash(
    queue: QueueRef, job_id: str, state: JobState, fields: Mapping[bytes, bytes], **more: Any
) -> Job:
    """A whole job as people look at it."""
    raw_options = fields.get(b"opts", b"{}")
    options = decode_options(raw_options)
    return Job(
        id=job_id,
        queue=queue,
        state=state,
        name=text(fields.get(b"name", b"")),
        data=text(fields.get(b"data", b"")),
        options=text(raw_options),
        added_at_ms=number(fields.get(b"timestamp")),
        delay_ms=number(fields.get(b"delay")),
        priority=number(fields.get(b"priority")),
        attempts=options.attempts,
        attempts_made=number(fields.get(b"atm")),
        attempts_started=number(fields.get(b"ats")),
        stalls=number(fields.get(b"stc")),
        replays=number(fields.get(b"tb:gen")),
        started_at_ms=number(fields.get(b"processedOn")) or None,
        finished_at_ms=number(fields.get(b"finishedOn")) or None,
        worker=text(fields.get(b"pb", b"")),
        result=_optional_text(fields.get(b"returnvalue")),
        error=_optional_text(fields.get(b"failedReason")),
        stacktraces=stacktraces(fields.get(b"stacktrace", b"[]")),
        progress=_optional_text(fields.get(b"progress")),
        deferred_failure=_optional_text(fields.get(b"defa")),
        **more,
    )


SUMMARY_FIELDS = (
    "name", "data", "opts", "timestamp", "processedOn", "finishedOn", "atm", "priority",
    "failedReason",
)  # fmt: skip


def summary_from_fields(
    queue: QueueRef,
    job_id: str,
    state: JobState,
    values: Sequence[bytes | None],
    due_at_ms: int | None,
) -> JobSummary:
    """A list row from the values of SUMMARY_FIELDS."""
    name, data, opts, timestamp, processed, finished, made, priority, reason = values
    return JobSummary(
        id=job_id,
        queue=queue,
        state=state,
        name=text(name or b""),
        data_start=text((data or b"")[:DATA_START_BYTES]),
        data_bytes=len(data or b""),
        added_at_ms=number(timestamp),
        due_at_ms=due_at_ms,
        started_at_ms=number(processed) or None,
        finished_at_ms=number(finished) or None,
        attempts=decode_options(opts or b"{}").attempts,
        attempts_made=number(made),
        priority=number(priority),
        error=None if reason is None else text(reason[:500]),
        exists=name is not None,
    )


def stacktraces(raw: bytes) -> tuple[str, ...]:
    """The stored stack traces, oldest first; text that is no JSON list is one trace."""
    try:
        stored = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return (text(raw),) if raw else ()
    if isinstance(stored, list):
        return tuple(str(trace) for trace in stored)
    return () if stored is None or stored == {} else (str(stored),)


def _optional_text(raw: bytes | None) -> str | None:
    return None if raw is None else text(raw)
