"""Every Redis key by name. The scripts build the same names from the same prefix (lib/queue)."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from tickbird.job import QueueRef

QUEUES = "tickbird:queues"
"""Set of `<prefix>:<queue>`: queues our clients have used, so that they are found at once."""


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue. BullMQ's own begin with `prefix`, ours with `tickbird:` + `prefix`."""

    queue: QueueRef

    @property
    def prefix(self) -> str:
        """What all keys of the queue begin with, the last colon included."""
        return f"{self.queue.prefix}:{self.queue.name}:"

    def of(self, suffix: str) -> str:
        """A key of the layout: wait, active, delayed, meta, ..."""
        return self.prefix + suffix

    def job(self, job_id: str) -> str:
        """The job's hash."""
        return self.prefix + job_id

    def raw_job(self, job_id: bytes) -> bytes:
        """The hash of a job whose id may be any bytes."""
        return self.prefix.encode() + job_id

    def logs(self, job_id: str) -> str:
        """The job's log lines."""
        return f"{self.prefix}{job_id}:logs"

    def own(self, suffix: str) -> str:
        """A key of ours about this queue; deleting it loses no job."""
        return f"tickbird:{self.prefix}{suffix}"

    @property
    def stats(self) -> str:
        """Hash of monotonic counters."""
        return self.own("stats")

    @property
    def cancel(self) -> str:
        """Hash: id of a running job to cancel -> `<its lock's token>|<reason>`; kept an hour."""
        return self.own("cancel")

    @property
    def workers(self) -> str:
        """Zset: worker id -> last heartbeat, epoch milliseconds."""
        return self.own("workers")

    def worker(self, worker_id: str) -> str:
        """Hash of what a worker says about itself; ends by itself 30 s after the last word."""
        return self.own(f"worker:{worker_id}")

    def memo(self, client: str, lane: int) -> str:
        """The last call of a lane and its answer, kept 24 h (lib/lane)."""
        return self.own(f"op:{client}:{lane}")

    def client_name(self, worker_name: str = "") -> str:
        """The connection name by which BullMQ's clients recognise a worker of this queue."""
        name = base64.b64encode(self.queue.name.encode()).decode()
        return f"{self.queue.prefix}:{name}" + (f":w:{worker_name}" if worker_name else "")


def hash_tag(key: str) -> str | None:
    """The part of a key that chooses its cluster slot; None: the whole key does.

    It stands between the first `{` and the next `}`, and is not empty.
    """
    start = key.find("{")
    end = key.find("}", start + 1)
    return key[start + 1 : end] if start >= 0 and end > start + 1 else None


def queue_of_client(client_name: str) -> QueueRef | None:
    """The queue whose worker a connection of this name is; None for any other connection."""
    base, _, _ = client_name.partition(":w:")
    prefix, _, encoded = base.rpartition(":")
    if not prefix or not encoded or encoded == "qe":
        return None
    try:
        name = base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return None
    return QueueRef(name, prefix) if name and ":" not in name else None


def queue_of_meta(key: str) -> QueueRef | None:
    """The queue a `<prefix>:<queue>:meta` key belongs to; None for a key of something else."""
    parts = key.rsplit(":", 2)
    if len(parts) != 3 or parts[2] != "meta" or not parts[0] or not parts[1]:  # noqa: PLR2004
        return None
    if parts[0].startswith("tickbird"):
        return None
    return QueueRef(parts[1], parts[0])
