"""When a schedule's next iteration is due, and whether there is one. Pure; schedule.py calls it.

The rules are those of BullMQ's job schedulers, so that iterations made by either side follow on
each other. All times are epoch milliseconds.
"""

from __future__ import annotations

from datetime import tzinfo

from tickbird.cron import CronPattern


def next_every_ms(
    *,
    every_ms: int,
    now_ms: int,
    prev_ms: int | None,
    offset_ms: int | None,
    start_ms: int | None,
) -> tuple[int, int]:
    """When the iteration after `prev_ms` (None: the first) is due, and the offset to record.

    The first is due at `start_ms` if that is to come, else at the next slot of the given offset,
    else now. Later ones follow the one before by the interval; those missed are left out.
    """
    if prev_ms is None:
        due_ms = _first_every_ms(every_ms, now_ms, offset_ms, start_ms)
    else:
        due_ms = prev_ms + every_ms
        if due_ms < now_ms:
            offset_ms = prev_ms if offset_ms is None else offset_ms
            due_ms = _next_slot_ms(every_ms, now_ms, offset_ms)
    return due_ms, due_ms % every_ms


def _first_every_ms(every_ms: int, now_ms: int, offset_ms: int | None, start_ms: int | None) -> int:
    if start_ms is not None and start_ms > now_ms:
        return start_ms
    return now_ms if offset_ms is None else _next_slot_ms(every_ms, now_ms, offset_ms)


def _next_slot_ms(every_ms: int, now_ms: int, offset_ms: int) -> int:
    """The first time after now that is `offset_ms` past a multiple of the interval."""
    slot_ms = now_ms - now_ms % every_ms + offset_ms % every_ms
    return slot_ms if slot_ms > now_ms else slot_ms + every_ms


def next_cron_ms(
    pattern: CronPattern,
    *,
    now_ms: int,
    prev_ms: int | None,
    start_ms: int | None,
    zone: tzinfo,
) -> int | None:
    """The pattern's first time after now, `prev_ms` and `start_ms`; None: there is none."""
    return pattern.next_ms(max(now_ms, prev_ms or 0, start_ms or 0), zone)


def is_over(*, count: int, limit: int | None, now_ms: int, end_ms: int | None) -> bool:
    """Whether no iteration follows the `count`-th: `limit` in all, none after `end_ms`."""
    return (limit is not None and count >= limit) or (end_ms is not None and now_ms > end_ms)
