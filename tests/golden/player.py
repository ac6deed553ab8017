"""Plays a recorded scenario with our own calls, at the recorded times, and compares each step."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import redis.asyncio as aioredis

from tests.factories import HandWorker, ended
from tests.golden.keyspace import KeySpace, RecordedStep, differences, dump, read_recording
from tickbird import Queue
from tickbird.storage import scripts
from tickbird.storage.connection import Connection
from tickbird.storage.keys import QueueKeys
from tickbird.storage.wire import KeepRule, TakenJob, packed

RECORDINGS = Path(__file__).parent / "recordings"
Edit = Callable[[KeySpace], None]
_GONE_BEFORE_MS = 5_000
"""A job that is gone at the end of its step has no times left: it lived so long before."""


class RecordedTime(Connection):
    """A connection whose scripts are told the time: all take it as their last argument."""

    now_ms = 0

    async def call(self, *command: Any) -> Any:
        return await super().call(*command, self.now_ms)

    @property
    def reader(self) -> Any:
        return _RecordedReader(super().reader, self)


class _RecordedReader:
    """A client whose pipelines answer TIME with the recorded time."""

    def __init__(self, client: Any, time: RecordedTime) -> None:
        self._client = client
        self._time = time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self, **how: Any) -> Any:
        pipe = self._client.pipeline(**how)
        seconds, milliseconds = divmod(self._time.now_ms, 1_000)
        pipe.set_response_callback("TIME", lambda _: (seconds, milliseconds * 1_000))
        return pipe


class Player:
    """One recording, played on keys of its own. `redis` is a plain client beside our calls."""

    def __init__(self, recording: str, redis_url: str, prefix: str) -> None:
        self.facts, self.steps = read_recording(RECORDINGS / f"{recording}.json")
        self.prefix = prefix
        self.url = redis_url
        self.redis: Any = aioredis.Redis.from_url(redis_url, decode_responses=True)
        self.compared: list[str] = []
        self._at = -1
        self._time = RecordedTime(redis_url)
        self._queues: dict[str, Queue] = {}
        self._workers: dict[str, HandWorker] = {}
        self._taken: dict[tuple[str, str], TakenJob] = {}

    async def aclose(self) -> None:
        await self._time.aclose()
        await self.redis.aclose()

    # --- where we are -----------------------------------------------------------

    @property
    def labels(self) -> list[str]:
        return [step.label for step in self.steps]

    def step(self, label: str) -> None:
        """Go on to a step; what follows happens at the times recorded in it."""
        self._at = self.labels.index(label)

    @property
    def recorded(self) -> RecordedStep:
        return self.steps[self._at]

    def time_of(self, job_id: str, field: str, queue: str = "q") -> int:
        """A time the step's recording has in the job's hash."""
        key = f"{queue}:{job_id}"
        if key not in self.recorded.keys:
            return self.recorded.now_ms - _GONE_BEFORE_MS
        return int(self.recorded.keys[key]["value"][field])

    def due_ms(self, job_id: str) -> int:
        """When a delayed job is due, as its score in the recording says."""
        return int(self.recorded.key_space()["q:delayed"].value[job_id]) // 4096

    def at(self, now_ms: int) -> None:
        """What time it is for our scripts."""
        self._time.now_ms = now_ms

    def key(self, suffix: str) -> str:
        """The key on our server of `<queue>:<suffix>`."""
        return f"{self.prefix}:{suffix}"

    def queue(self, name: str = "q") -> Queue:
        if name not in self._queues:
            self._queues[name] = Queue(name, redis=self._time, prefix=self.prefix)
            self._workers[name] = HandWorker(self._queues[name])
        return self._queues[name]

    # --- our calls --------------------------------------------------------------

    async def add(
        self,
        job_id: str,
        name: str,
        data: Any = msgspec.UNSET,
        /,
        *,
        queue: str = "q",
        **options: Any,
    ) -> None:
        """Queue.add at the job's recorded timestamp; it must get the recorded id."""
        self.at(self.time_of(job_id, "timestamp", queue))
        handle = await self.queue(queue).add(name, data, **options)
        assert handle.id == job_id

    async def take(
        self,
        job_id: str | None,
        *,
        worker: str = "",
        queue: str = "q",
        wanted: int = 1,
        limits: dict[str, int] | None = None,
    ) -> TakenJob | None:
        """One take call, which must take this job, at its recorded start (None: must take none)."""
        self.queue(queue)
        hand = self._workers[queue]
        hand.name, hand.limits = worker, limits or {}
        now_ms = self.recorded.now_ms
        if job_id is not None:
            now_ms = self.time_of(job_id, "processedOn", queue)
        jobs = await hand.take(wanted, now_ms=now_ms)
        return self._remember(jobs, job_id, queue)

    async def take_at(self, job_id: str, now_ms: int) -> None:
        """Take this job at a time of the test's own."""
        self.queue()
        self._remember(await self._workers["q"].take(1, now_ms=now_ms), job_id, "q")

    async def complete(
        self,
        job_id: str,
        result: str,
        *,
        queue: str = "q",
        then_take: str | None = None,
        then_none: bool = False,
    ) -> None:
        """End a job well at its recorded finish; `then_take` fetches the next in the same call.

        `then_none` fetches, too, and there must be nothing to take.
        """
        at_ms = self.time_of(job_id, "finishedOn", queue)
        keep = self._taken[queue, job_id].options.keep_completed or KeepRule()
        jobs = await self._end(
            job_id, "completed", at_ms, queue, int(then_none or then_take is not None), text=result,
            keep_count=keep.count, keep_age_s=keep.age_s, keep_limit=keep.limit,
        )  # fmt: skip
        self._remember(jobs, then_take, queue)

    async def fail(self, job_id: str, reason: str, *, queue: str = "q", attempts: int = 1) -> None:
        """End a job in `failed`, with the recorded stack traces, at its recorded finish."""
        await self._end(
            job_id, "failed", self.time_of(job_id, "finishedOn", queue), queue, text=reason,
            stacktrace=self._stacktrace(job_id, queue), attempts=attempts,
        )  # fmt: skip

    async def retry(self, job_id: str, reason: str, *, delay_ms: int = 0) -> None:
        """End an attempt that will be made again after a delay, so that it is due as recorded."""
        at_ms = self.time_of(job_id, "processedOn")
        if delay_ms:
            at_ms = self.due_ms(job_id) - delay_ms
        await self._end(
            job_id, "retried", at_ms, text=reason,
            stacktrace=self._stacktrace(job_id), delay_ms=delay_ms,
        )  # fmt: skip

    async def postpone(self, job_id: str, delay_ms: int) -> None:
        """End an attempt that is to go on later, so that it is due as recorded."""
        await self._end(job_id, "postponed", self.due_ms(job_id) - delay_ms, delay_ms=delay_ms)

    async def wait_for_children(self, job_id: str) -> None:
        """End an attempt that waits for its children, at the recorded time."""
        at_ms = int(self.recorded.key_space()["q:waiting-children"].value[job_id])
        await self._end(job_id, "waiting_children", at_ms)

    async def iterate(self, job_id: str, *, at_ms: int) -> None:
        """Add the iteration after a taken one."""
        self.at(at_ms)
        await self.queue().schedules.iterate(self.taken(job_id))

    async def hand_back(self, job_id: str) -> None:
        await self._end(job_id, "handed_back", self.recorded.now_ms)

    async def replay(self, *job_ids: str, **how: Any) -> None:
        self.at(self.recorded.now_ms)
        assert await self.queue().replay(job_ids, **how) == [True] * len(job_ids)

    async def renew(self, job_id: str, *, lock_ms: int, at_ms: int | None = None) -> None:
        """One renewal of a job's lock, which must still be the taker's."""
        self.at(self.recorded.now_ms if at_ms is None else at_ms)
        pair = [packed(job_id.encode()), packed(self._taken["q", job_id].token)]
        lost = await self._run(
            "renew_locks", lock_ms, msgspec.msgpack.encode([pair]), msgspec.msgpack.encode([])
        )
        assert lost == []

    async def recover(self, *, at_ms: int, allowed_stalls: int = 3) -> list[str]:
        """One pass that brings back jobs whose deadline is past; says which."""
        self.at(at_ms)
        found, _ = await self._run("recover_stalled", 100, allowed_stalls, 0)
        return [job_id.decode() for job_id in found]

    def taken(self, job_id: str, queue: str = "q") -> TakenJob:
        return self._taken[queue, job_id]

    def with_recorded_prefix(self, keys: KeySpace) -> None:
        """What names other keys does so as the recording does."""
        for stored in keys.values():
            text = json.dumps(stored.value).replace(f"{self.prefix}:", "bull:")
            stored.value = json.loads(text.replace(f'"{self.prefix}"', '"bull"'))

    def with_one_timestamp(self, keys: KeySpace) -> None:
        """A millisecond may pass between what another client writes twice."""
        for stored in keys.values():
            if stored.type == "hash" and "timestamp" in stored.value.get("opts", {}):
                stored.value["opts"]["timestamp"] = int(stored.value["timestamp"])

    async def workers_are_idle(self, *queues: str) -> None:
        """As in the recording, where running workers had popped all wake-ups."""
        await self.redis.delete(*(self.key(f"{queue}:marker") for queue in queues))

    # --- what other clients do --------------------------------------------------

    async def as_recorded(self, *keys: str) -> None:
        """Another client made this step: its keys become what was recorded (hashes keep ours)."""
        for key in keys:
            recorded = self.recorded.keys.get(key, {"type": "none", "value": None})
            await _write(self.redis, self.key(key), recorded["type"], recorded["value"])

    async def emit(self, **fields: str) -> None:
        """Another client's event."""
        await self.redis.xadd(self.key("q:events"), fields)

    # --- comparing --------------------------------------------------------------

    async def differences(self, but: Edit | None = None, both: Edit | None = None) -> list[str]:
        expected, actual = self.recorded.key_space(), await dump(self.redis, self.prefix)
        for edit, keys in ((but, expected), (both, expected), (both, actual)):
            if edit is not None:
                edit(keys)
        return differences(expected, actual)

    async def compare(
        self,
        *,
        but: Edit | None = None,
        why: str = "",
        both: Edit | None = None,
        within_s: float = 0,
    ) -> None:
        """Our key space is the recorded one.

        `but` turns the recording into what we do on purpose, with the rule as `why`: a
        difference that is not there any more is an error, too. `both` hides on both sides
        what cannot be the same twice. A worker at work gets `within_s` to come there.
        """
        assert (but is None) == (why == ""), "a difference has a reason"
        deadline_s = time.monotonic() + within_s
        while found := await self.differences(but, both):
            if time.monotonic() >= deadline_s:
                break
            await asyncio.sleep(0.02)
        assert not found, "\n  ".join([f"step {self.recorded.label!r}", *found])
        if but is not None:
            before = self.recorded.key_space()
            after = deepcopy(before)
            but(after)
            assert differences(before, after), f"step {self.recorded.label!r} does not differ"
        self.compared.append(self.recorded.label)

    # --- inside -----------------------------------------------------------------

    async def _run(self, script: str, *args: Any) -> Any:
        keys = QueueKeys(self.queue().ref)
        return await scripts.run(self._time.call, script, keys.of("meta"), keys.prefix, *args)

    async def _end(
        self, job_id: str, outcome: str, at_ms: int, queue: str = "q", wanted: int = 0, **more: Any
    ) -> list[TakenJob]:
        attempt = ended(self._taken.pop((queue, job_id)), outcome, **more)
        codes, jobs = await self._workers[queue].exchange([attempt], wanted, now_ms=at_ms)
        assert codes == [0]
        return jobs

    def _remember(
        self, jobs: Sequence[TakenJob], job_id: str | None, queue: str
    ) -> TakenJob | None:
        assert [job.id.decode() for job in jobs] == ([job_id] if job_id else [])
        for job in jobs:
            self._taken[queue, job.id.decode()] = job
        return jobs[0] if jobs else None

    def _stacktrace(self, job_id: str, queue: str = "q") -> str:
        return str(self.recorded.keys[f"{queue}:{job_id}"]["value"]["stacktrace"])


async def _write(client: Any, key: str, kind: str, value: Any) -> None:
    if kind == "hash":
        ours = await client.hgetall(key)
        gone = [field for field in ours if field not in value and not field.startswith("tb")]
        if gone:
            await client.hdel(key, *gone)
        await client.hset(key, mapping=value)
        return
    await client.delete(key)
    if kind == "zset":
        await client.zadd(key, {entry["member"]: entry["score"] for entry in value})
    elif kind == "list":
        await client.rpush(key, *value)
    elif kind == "string":
        await client.set(key, value)
    else:
        assert kind == "none", f"no client is played that writes a {kind}"
