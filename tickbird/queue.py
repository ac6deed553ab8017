"""The client side of a queue: adding jobs. What operators do is in operations.py and upkeep.py."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError

from tickbird.clock import SystemClock
from tickbird.durations import Duration, parse_duration_ms
from tickbird.errors import InvalidOption
from tickbird.flow import (
    Children,
    FlowHandle,
    FlowNode,
    Parent,
    PlannedNode,
    child_fields,
    plan_flow,
    read_children,
)
from tickbird.handle import JobHandle
from tickbird.job import Job, JobState, QueueRef
from tickbird.operations import Removal
from tickbird.options import (
    LAST_DUE_MS,
    JobOptions,
    parse_options,
    require_prefix,
    require_queue_name,
)
from tickbird.results import ResultWaiter
from tickbird.schedule import Schedules
from tickbird.storage.connection import Connection
from tickbird.storage.keys import QUEUES
from tickbird.storage.wire import (
    HARD_MAX_DATA_BYTES,
    MAX_DATA_BYTES,
    NewJobMessage,
    encode_data,
    encode_name,
    new_job,
    raw_bytes,
    text,
)
from tickbird.upkeep import Upkeep

logger = logging.getLogger(__name__)

NewJob = tuple[str, Any] | tuple[str, Any, Mapping[str, Any]]
"""A job for add_many: name, data and, where there are any, options."""

_JOBS_PER_CALL = 500
_BYTES_PER_CALL = 1024 * 1024


class Queue(Upkeep):
    """A named line of jobs on Redis, in BullMQ's layout.

    `redis` is a URL (redis://, rediss://, unix://), or the Connection of an app; without it
    TICKBIRD_REDIS_URL counts, then the local server. The queue's keys begin with
    `<prefix>:<name>:`, as Node has it. `max_data_bytes` bounds the JSON of one job (at most
    8 MB); `deadline_s` bounds how long a call is repeated while Redis does not answer.
    """

    def __init__(
        self,
        name: str,
        *,
        redis: str | Connection | None = None,
        prefix: str = "bull",
        max_data_bytes: int = MAX_DATA_BYTES,
        deadline_s: float = 10.0,
    ) -> None:
        require_queue_name(name)
        require_prefix(prefix)
        if not 1 <= max_data_bytes <= HARD_MAX_DATA_BYTES:
            raise InvalidOption(
                f"max_data_bytes must be between 1 and {HARD_MAX_DATA_BYTES:,}, not {max_data_bytes!r}"
            )
        owns_connection = not isinstance(redis, Connection)
        connection = redis if isinstance(redis, Connection) else Connection(redis)
        super().__init__(QueueRef(name, prefix), connection, deadline_s)
        self._owns_connection = owns_connection
        self._max_data_bytes = max_data_bytes
        self._is_registered = False
        self._siblings: dict[str, Queue] = {}
        self._results = ResultWaiter(self.ref, connection)

    @property
    def connection(self) -> Connection:
        """The connections the queue uses."""
        return self._connection

    @property
    def schedules(self) -> Schedules:
        """The queue's schedules."""
        return Schedules(self.ref, self._connection, self._lanes, self._deadline_s)

    def sibling(self, name: str) -> Queue:
        """Another queue of the same prefix, over the same connections; closed with this one."""
        if name not in self._siblings:
            self._siblings[name] = Queue(
                name,
                redis=self._connection,
                prefix=self.ref.prefix,
                max_data_bytes=self._max_data_bytes,
                deadline_s=self._deadline_s,
            )
        return self._siblings[name]

    async def run_in_lane(self, script: str, *args: Any) -> Any:
        """Run a writing script that must not act twice (for what belongs to a queue's family)."""
        return await self._lanes.call(script, *args, deadline_s=self._deadline_s)

    async def add(self, name: str, data: Any = msgspec.UNSET, **options: Any) -> JobHandle[Any]:
        """Add one job and return once Redis has it.

        `data` is anything JSON can say; left out, the job carries `{}`. Options: JobOptions.
        Everything is checked before anything is stored (InvalidOption, DataTooLarge). With
        Redis at its memory limit QueueFull is raised at once. Without an answer for
        `deadline_s`: RedisUnavailable if the job cannot have been added, else OutcomeUnknown.
        """
        (handle,) = await self.add_many([(name, data, options)])
        return handle

    async def add_many(self, jobs: Sequence[NewJob]) -> list[JobHandle[Any]]:
        """Add jobs in order, up to 500 (or 1 MB) per round trip; handles in the same order.

        All are checked before the first is stored. A call is stored whole or not at all; when a
        later one fails, the jobs of earlier ones are in the queue.
        """
        encoded = [self._encode(*job) for job in jobs]
        handles: list[JobHandle[Any]] = []
        for chunk in _chunks(encoded):
            reply = await self._send(chunk)
            handles += [self._handle(self.ref, job_id, added) for job_id, added in reply]
        return handles

    async def add_flow(self, root: FlowNode) -> FlowHandle:
        """Add a tree of jobs, all of it or nothing; `root` must belong to this queue.

        Each parent waits for its children; `on_failure` of a child says what its final failure
        makes of its parent. All queues of a flow have this queue's prefix.
        """
        if root.queue != self.ref.name:
            raise InvalidOption(f"the flow's root belongs to queue {root.queue!r}, not {self.ref}")
        planned = plan_flow(root, self.ref.prefix, self._max_data_bytes)
        nodes = list(planned.walk())
        reply = await self._send([node.message for node in nodes])
        handles = {
            id(node): self._handle(node.queue, job_id, added)
            for node, (job_id, added) in zip(nodes, reply, strict=True)
        }

        def tree(node: PlannedNode) -> FlowHandle:
            return FlowHandle(handles[id(node)], tuple(tree(child) for child in node.children))

        return tree(planned)

    async def add_child(
        self, parent: Parent, name: str, data: Any = msgspec.UNSET, **options: Any
    ) -> JobHandle[Any]:
        """Add a job that a job of another (or this) queue waits for.

        Raises JobNotFound when the parent is gone, InvalidOption when the id given is another
        living parent's child.
        """
        message = self._encode(name, data, options, child_fields(parent))
        ((job_id, added),) = await self._send([message])
        return self._handle(self.ref, job_id, added)

    async def state(self, job_id: str) -> JobState:
        """Where a job is now; `unknown` when it is nowhere."""
        return await self._inspector.get_state(self.ref, job_id)

    async def job(self, job_id: str) -> Job | None:
        """A job whole, as it stands now; None when there is no such job."""
        return await self._inspector.get_job(self.ref, job_id)

    async def children(self, job_id: str) -> Children:
        """What has become of a job's children."""
        return await read_children(self._connection, self.ref, job_id)

    async def remove_pending_children(self, job_id: str) -> int:
        """Remove a job's children that have not finished, but for those in work; gives how many.

        The job runs when none is left. At most 1,000 children a call, of queues of this prefix.
        """
        pending = (await self.children(job_id)).pending
        by_queue: dict[str, list[str]] = {}
        for key in pending:
            prefix, _, child_id = key.rpartition(":")
            by_queue.setdefault(prefix, []).append(child_id)
        removed = 0
        for prefix, ids in by_queue.items():
            ref = QueueRef.from_label(prefix)
            if ref.prefix != self.ref.prefix:
                continue  # another client's flow over prefixes: not ours to reach into
            queue = self.sibling(ref.name)
            for start in range(0, len(ids), _JOBS_PER_CALL):
                answers = await queue.remove(ids[start : start + _JOBS_PER_CALL])
                removed += sum(answer is Removal.REMOVED for answer in answers)
        return removed

    async def detach(self, job_id: str) -> bool:
        """Part a child from its parent, which waits for it no longer. False: it has none."""
        parted: int = await self.run_in_lane("detach_child", raw_bytes(job_id))
        return parted == 1

    async def publish_event(self, kind: str, **fields: str) -> str:
        """Write an event of your own to the queue's stream; gives its id."""
        if not kind or "event" in fields:
            raise InvalidOption("an event needs a kind, and no field named 'event'")
        event_id: bytes = await self._connection.reader.xadd(
            self._keys.of("events"), {"event": kind, **fields}, maxlen=10_000, approximate=True
        )
        return text(event_id)

    async def cancel(self, job_id: str, reason: str = "cancelled") -> bool:
        """Cancel a job: one that waits fails at once, one that runs is told to stop.

        A running job's worker looks once a second; its task is cancelled (async), interrupted
        (thread) or killed (process), and the job fails for good with the reason. False: it has
        finished, does not exist, runs in another client's worker, or is the run a schedule waits
        for (remove the schedule). For a job in `wait` the list
        is searched: 35 ms per million waiting jobs.
        """
        trace = msgspec.json.encode([f"JobCancelled: {reason}"])
        answer: int = await self._run("cancel_job", raw_bytes(job_id), reason, trace)
        return answer > 0

    async def result(self, job_id: str, timeout: Duration | None = None) -> Any:  # noqa: ASYNC109
        """The result of a job, pushed by the queue's events as soon as it has finished.

        Raises JobFailed with the job's reason, JobNotFound when there is no such job, JobTimeout
        after `timeout` (a duration; None: however long it takes).
        """
        timeout_s = None if timeout is None else parse_duration_ms(timeout, "timeout") / 1_000
        return await self._results.wait(job_id, timeout_s)

    async def aclose(self) -> None:
        """Close the queue's connections, but for an app's; who waits for a result is cancelled."""
        siblings, self._siblings = self._siblings, {}
        for sibling in siblings.values():
            await sibling.aclose()
        await self._results.aclose()
        if self._owns_connection:
            await self._connection.aclose()

    async def _send(self, messages: list[NewJobMessage]) -> list[tuple[bytes, int]]:
        reply: list[tuple[bytes, int]] = await self._lanes.call(
            "add_jobs", msgspec.msgpack.encode(messages), deadline_s=self._deadline_s
        )
        await self._register()
        return reply

    def _handle(self, ref: QueueRef, job_id: bytes, added: int) -> JobHandle[Any]:
        queue = self if ref == self.ref else self.sibling(ref.name)
        return JobHandle(text(job_id), ref, created=added == 1, queue=queue)

    def _encode(
        self,
        name: str,
        data: Any = msgspec.UNSET,
        options: Mapping[str, Any] | None = None,
        relations: Mapping[str, Any] | None = None,
    ) -> NewJobMessage:
        parsed = parse_options(options or {})
        _require_reachable(parsed)
        if relations and parsed.dedup is not None:
            raise InvalidOption("dedup cannot be used on a child")
        return new_job(
            parsed,
            encode_name(name),
            b"{}" if data is msgspec.UNSET else encode_data(data, self._max_data_bytes),
            **(relations or {}),
        )

    async def _register(self) -> None:
        """Make the queue known to dashboards at once; they would find it by a scan later."""
        if self._is_registered:
            return
        try:
            await self._connection.reader.sadd(QUEUES, self._keys.prefix[:-1])
            self._is_registered = True
        except (RedisError, OSError) as error:  # the jobs are in; the next add tries again
            logger.debug("registration_failed queue=%s error=%s", self.ref.label, error)


def _require_reachable(options: JobOptions) -> None:
    created_ms = options.timestamp_ms or SystemClock().now_ms()
    if options.delay_ms and created_ms + options.delay_ms >= LAST_DUE_MS:
        raise InvalidOption("delay ends after September 2039, which the layout cannot hold")


def _chunks(jobs: list[NewJobMessage]) -> list[list[NewJobMessage]]:
    chunks: list[list[NewJobMessage]] = []
    size_bytes = 0
    for job in jobs:
        job_bytes = len(memoryview(job.data))
        if (
            not chunks
            or len(chunks[-1]) >= _JOBS_PER_CALL
            or size_bytes + job_bytes > _BYTES_PER_CALL
        ):
            chunks.append([])
            size_bytes = 0
        chunks[-1].append(job)
        size_bytes += job_bytes
    return chunks
