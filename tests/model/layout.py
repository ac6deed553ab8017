"""Which keys a world makes, and what is in them."""

from __future__ import annotations

from typing import Any

from tests.model.keyspace import Until
from tests.model.model import World
from tests.model.parts import Queue, in_order


def expected_keys(world: World) -> dict[str, Any]:
    """All keys but markers, meta, events and the registry."""
    keys: dict[str, Any] = {}
    for queue in world.queues.values():
        keys |= _queue_keys(queue, world.now_ms)
    for key, job in world.jobs.items():
        keys[key] = job.hash()
        keys[f"{key}:dependencies"] = job.pending
        keys[f"{key}:processed"] = job.processed
        keys[f"{key}:failed"] = job.ignored
        keys[f"{key}:unsuccessful"] = in_order(job.unsuccessful)
    return {key: value for key, value in keys.items() if value}


def _queue_keys(queue: Queue, now_ms: int) -> dict[str, Any]:
    prefix, own = queue.prefix, f"tickbird:{queue.prefix}"
    keys: dict[str, Any] = {
        f"{prefix}wait": queue.wait[::-1],
        f"{prefix}active": queue.active[::-1],
        f"{prefix}repeat": in_order({i: s.due_ms for i, s in queue.schedules.items()}),
        f"{prefix}id": queue.counter and Until(str(queue.counter), None),
        f"{prefix}pc": queue.turns and Until(str(queue.turns), None),
        f"{own}locks": in_order({i: lock.deadline_ms for i, lock in queue.locks.items()}),
        f"{own}stats": {name: str(number) for name, number in queue.stats.items() if number},
        f"{own}cancel": queue.cancels,
    }
    for suffix, members in queue.sets.items():
        keys[prefix + suffix] = in_order(members)
    for job_id, lock in queue.locks.items():
        keys[f"{prefix}{job_id}:lock"] = lock.token and Until(lock.token, 0)
    for key, owner in queue.owners.items():
        ends_in_ms = None if owner.ends_ms is None else owner.ends_ms - now_ms
        keys[f"{prefix}de:{key}"] = Until(owner.id, ends_in_ms)
    for key, (job_id, new) in queue.proposals.items():
        fields = {"name": new.name, "data": new.data, "opts": new.options, "jid": job_id}
        keys[f"{prefix}dn:{key}"] = fields
    for schedule_id, schedule in queue.schedules.items():
        fields = {**schedule.record, "ic": str(schedule.iterations)}
        keys[f"{prefix}repeat:{schedule_id}"] = fields
    if queue.limiter:
        used, ends_ms = queue.limiter
        keys[f"{prefix}limiter"] = Until(str(used), ends_ms - now_ms)
    return keys
