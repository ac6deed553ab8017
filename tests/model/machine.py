"""Random calls on real queues, and what the model says of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from redis.exceptions import ResponseError

from tests.factories import HandWorker, expire_lock
from tests.model.drawn import (
    CUSTOM_IDS,
    DEDUPS,
    DELAYS_S,
    ENDS,
    FLAGS,
    HOUR_MS,
    MINUTE_MS,
    NAMES,
    ON_FAILURE,
    PICKS,
    PRIORITIES,
    QUEUES,
    STATES,
    TREES,
    WORKERS,
    End,
    Node,
    asked_job,
    ending_of,
    flow_node,
    seen_by_worker,
    stored,
    wire_of,
)  # fmt: skip
from tests.model.keyspace import KeySpace, differences, read_keyspace
from tests.model.laboratory import START_MS, Laboratory
from tests.model.layout import expected_keys
from tests.model.model import CRON_PATTERN, STALL_LIMIT, Refused, World
from tests.model.parts import Job, Link, Queue, in_order
from tickbird import Cron, Every
from tickbird import Queue as RealQueue
from tickbird.errors import InvalidOption, JobNotFound
from tickbird.flow import OnFailure, Parent
from tickbird.maintenance import Maintenance
from tickbird.options import Dedup
from tickbird.storage import scripts
from tickbird.storage.wire import EndedAttempt, TakenJob

PREFIX = "m"
LOCK_MS = 300_000
MARGIN_MS = 2 * MINUTE_MS
"""Nothing on the server may end by its own clock before the model's says so."""


@dataclass
class Held:
    """An attempt in the hands of a worker; its lock may be lost long since."""

    worker: int
    job: TakenJob


T = TypeVar("T")
_STEPS: list[Step] = []


@dataclass(frozen=True, repr=False)
class Step:
    """A call the machine may make: how often it is among those to choose from, and with what."""

    name: str
    times: int
    needs_attempt: bool
    arguments: st.SearchStrategy[dict[str, Any]]

    def __repr__(self) -> str:
        return self.name


def step(times: int = 1, *, needs_attempt: bool = False, **arguments: Any) -> Callable[[T], T]:
    """Jobs must get on for other calls to matter, so taking and ending come `times` as often."""

    def mark(method: T) -> T:
        name: str = method.__name__  # type: ignore[attr-defined]
        _STEPS.append(Step(name, times, needs_attempt, st.fixed_dictionaries(arguments)))
        return method

    return mark


def _one_of(steps: Sequence[Step]) -> st.SearchStrategy[Step]:
    """Hypothesis likes the first best, so that is a step which gets on."""
    by_weight = sorted(steps, key=lambda each: -each.times)
    return st.sampled_from([each for each in by_weight for _ in range(each.times)])


class QueueMachine(RuleBasedStateMachine):
    """Two queues with three workers between them; `lab` is set by whoever runs it."""

    lab: Laboratory

    def __init__(self) -> None:
        super().__init__()
        lab = self.lab
        lab.now_ms = START_MS
        lab.lane_calls.clear()
        lab.run(lab.connection.reader.flushdb())
        self.world = World(PREFIX, START_MS, ["a", "b"])
        self.real = {
            name: RealQueue(name, redis=lab.connection, prefix=PREFIX) for name in self.world.queues
        }
        self.workers = [
            HandWorker(self.real["a"], lock_ms=LOCK_MS, id="one"),
            HandWorker(
                self.real["a"], lock_ms=LOCK_MS, id="two", limits={"max": 3, "duration": HOUR_MS}
            ),
            HandWorker(self.real["b"], lock_ms=LOCK_MS, id="three"),
        ]
        self.held: list[Held] = []
        self.last_exchange: dict[int, tuple[list[EndedAttempt], int, bool]] = {}
        self.excused: set[str] = set()
        """Queues whose last taker met a rate limit: it comes back by itself when that ends."""
        self.told_due_ms: dict[str, float] = {}
        """When the last taker that found nothing looks again."""
        self.flows = 0

    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        chosen = data.draw(_ANY_STEP if self.held else _STEP_WITHOUT_ATTEMPT)
        arguments = data.draw(chosen.arguments)
        note(f"{chosen.name}({', '.join(f'{n}={v!r}' for n, v in arguments.items())})")
        getattr(self, chosen.name)(**arguments)
        self.lab.calls[chosen.name] += 1
        self.check()

    # --- time and failures --------------------------------------------------------

    @step(ms=st.sampled_from([1, 999, 5_000, MINUTE_MS, LOCK_MS, HOUR_MS, 2 * HOUR_MS]))
    def time_passes(self, *, ms: int) -> None:
        world = self.world
        world.advance(ms, MARGIN_MS)
        self.lab.now_ms = world.now_ms
        reader = self.lab.connection.reader
        for queue in world.queues.values():
            for key in self._keys_that_end(queue):
                expected = expected_keys(world).get(key)
                if expected is None:
                    self.lab.run(reader.delete(key))
                elif expected.ends_in_ms is not None:
                    self.lab.run(reader.pexpire(key, expected.ends_in_ms))

    def _keys_that_end(self, queue: Queue) -> list[str]:
        found = self.lab.run(self.lab.connection.reader.keys(f"{queue.prefix}de:*"))
        return [*(key.decode() for key in found), f"{queue.prefix}limiter"]

    @step(2, pick=PICKS)
    def lock_is_lost(self, *, pick: int) -> None:
        locks = [(q, i) for q in self.world.queues.values() for i in sorted(q.locks)]
        if locks:
            queue, job_id = locks[pick % len(locks)]
            self.lab.run(expire_lock(self.real[queue.name], job_id))
            queue.locks[job_id].token = None
            queue.locks[job_id].deadline_ms = 1

    @step(2, queue=QUEUES)
    def stalled_jobs_are_recovered(self, *, queue: str) -> None:
        care = Maintenance(
            self.lab.connection, self.real[queue].ref, interval_s=1, grace_s=0,
            stall_limit=STALL_LIMIT,
        )  # fmt: skip
        found = self.lab.run(care.run_once())
        expected = self.world.recover(self.world.queues[queue], self._delay_in_redis)
        assert found == expected

    def _delay_in_redis(self, job_key: str) -> int:
        return int(self.lab.run(self.lab.connection.reader.hget(job_key, "delay")))

    @step(pick=PICKS)
    def another_client_recovers_a_job(self, *, pick: int) -> None:
        stalled = [
            (queue, job_id)
            for queue in self.world.queues.values()
            for job_id in queue.active
            if queue.locks[job_id].token is None
        ]
        if stalled:
            queue, job_id = stalled[pick % len(stalled)]
            pipe = self.lab.connection.reader.pipeline()
            pipe.lrem(f"{queue.prefix}active", 1, job_id)
            pipe.rpush(f"{queue.prefix}wait", job_id)
            pipe.hincrby(queue.prefix + job_id, "stc", 1)
            if not queue.paused:
                pipe.zadd(f"{queue.prefix}marker", {"0": 0})
            self.lab.run(pipe.execute())
            self.world.recover_abroad(queue, job_id)

    # --- adding -------------------------------------------------------------------

    @step(
        queue=QUEUES, name=NAMES, job_id=CUSTOM_IDS, delay_s=DELAYS_S, priority=PRIORITIES,
        lifo=st.booleans(), attempts=st.sampled_from([None, 1, 3]),
    )  # fmt: skip
    def add(self, *, queue: str, name: str, **options: Any) -> None:
        self._add_many(queue, [(name, options)])

    @step(queue=QUEUES, name=NAMES, job_id=CUSTOM_IDS, delay_s=DELAYS_S)
    def add_plain(self, *, queue: str, name: str, **options: Any) -> None:
        self._add_many(queue, [(name, options)])

    @step(5,
        queue=QUEUES, name=NAMES, job_id=CUSTOM_IDS, delay_s=DELAYS_S, priority=PRIORITIES,
        dedup=DEDUPS,
        aims=st.booleans(),
    )  # fmt: skip
    def add_deduplicated(
        self, *, queue: str, name: str, dedup: Dedup, aims: bool, **options: Any
    ) -> None:
        running = [
            key
            for key, owner in self.world.queues[queue].owners.items()
            if owner.id in self.world.queues[queue].active
        ]
        if aims and running:
            dedup = replace(dedup, key=running[0])
        self._add_many(queue, [(name, {"dedup": dedup, **options})])

    @step(
        queue=QUEUES,
        jobs=st.lists(
            st.tuples(
                NAMES,
                st.fixed_dictionaries(
                    {"job_id": CUSTOM_IDS, "delay_s": DELAYS_S, "priority": PRIORITIES}
                ),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def add_many(self, *, queue: str, jobs: list[tuple[str, dict[str, Any]]]) -> None:
        self._add_many(queue, jobs)

    def _add_many(self, queue: str, jobs: Sequence[tuple[str, dict[str, Any]]]) -> None:
        asked = [asked_job(name, options) for name, options in jobs]
        handles = self.lab.run(
            self.real[queue].add_many(
                [(new.name, msg_data, options) for new, msg_data, options in asked]
            )
        )
        answers = self.world.add_all([(self.world.queues[queue], new) for new, _, _ in asked])
        assert [(handle.id, handle.created) for handle in handles] == answers

    @step(
        queue=QUEUES,
        name=NAMES,
        job_id=CUSTOM_IDS,
        on_failure=ON_FAILURE,
        delay_s=DELAYS_S,
        pick=PICKS,
    )
    def add_child(
        self,
        *,
        queue: str,
        name: str,
        job_id: str,
        on_failure: OnFailure | None,
        delay_s: int,
        pick: int,
    ) -> None:
        parent = self._choose(pick, prefer=("active", "waiting-children"))
        parent_queue, parent_id = parent
        child_key = self.world.queues[queue].prefix + job_id
        if job_id and self._is_above(child_key, parent_queue.prefix + parent_id):
            job_id = ""
        link = Link(parent_queue.prefix + parent_id, FLAGS[on_failure])
        new, data, options = asked_job(name, {"job_id": job_id, "delay_s": delay_s}, link)
        self._both(
            lambda: self.real[queue].add_child(
                Parent(queue=self.real[parent_queue.name].ref, job_id=parent_id, on_failure=on_failure),
                name, data, **options,
            ),
            lambda: self.world.add_all([(self.world.queues[queue], new)])[0],
            lambda handle: (handle.id, handle.created),
        )  # fmt: skip

    def _is_above(self, key: str, below: str) -> bool:
        """Whether a job is the other, or waits for it somewhere up the tree."""
        while below != key:
            job = self.world.jobs.get(below)
            if job is None or job.parent is None:
                return False
            below = job.parent.key
        return True

    @step(root=TREES)
    def add_flow(self, *, root: Node) -> None:
        self.flows += 1
        for number, (node, _) in enumerate(root.walk()):
            node.id = node.id or f"f{self.flows}.{number}"
        self._without_circles(root, ())
        news = []
        for node, parent in root.walk():
            link = parent and Link(self._key(parent), FLAGS[node.flag])
            options = {"job_id": node.id, "delay_s": node.delay_s, "priority": node.priority}
            new, _, _ = asked_job("mail", options, link)
            new.has_children = bool(node.children)
            news.append((self.world.queues[node.queue], new))

        def ids(handle: Any) -> list[tuple[str, bool]]:
            below = [pair for child in handle.children for pair in ids(child)]
            return [(handle.job.id, handle.job.created), *below]

        self._both(
            lambda: self.real[root.queue].add_flow(flow_node(root)),
            lambda: self.world.add_all(news),
            ids,
        )

    def _key(self, node: Node) -> str:
        return self.world.queues[node.queue].prefix + node.id

    def _without_circles(self, node: Node, above: tuple[str, ...]) -> None:
        """A job that waits for itself is nothing we promise anything about: give another id."""
        key = self._key(node)
        if any(self._is_above(key, up) for up in above):
            node.id = f"{node.id}-{len(above)}-{self.flows}"
            key = self._key(node)
        for child in node.children:
            self._without_circles(child, (*above, key))

    # --- workers ------------------------------------------------------------------

    @step(worker=st.integers(0, 2), wanted=st.integers(1, 3), suspect=st.booleans())
    def take(self, *, worker: int, wanted: int, suspect: bool) -> None:
        self._exchange(worker, [], wanted, suspect=suspect)

    @step(6, worker=WORKERS)
    def take_one(self, *, worker: int) -> None:
        self._exchange(worker, [], 1, suspect=True)

    @step(4, worker=st.sampled_from([0, 0, 2]))
    def take_two(self, *, worker: int) -> None:
        self._exchange(worker, [], 2, suspect=True)

    @step(8, worker=WORKERS, end=ENDS)
    def run_one(self, *, worker: int, end: End) -> None:
        before = len(self.held)
        self._exchange(worker, [], 1, suspect=True)
        self.check()
        for held in self.held[before:]:
            self._exchange(worker, [(held, end)], 0, suspect=True)

    @step(
        6, needs_attempt=True, pick=PICKS, end=ENDS, wanted=st.integers(0, 1), forgets=st.booleans()
    )
    def end_one(self, *, pick: int, end: End, wanted: int, forgets: bool) -> None:
        held = self.held[pick % len(self.held)]
        self._exchange(held.worker, [(held, end)], wanted, suspect=True)
        if not forgets:
            self.held.append(held)

    @step(6, needs_attempt=True, pick=PICKS, end=ENDS)
    def end_another(self, *, pick: int, end: End) -> None:
        held = self.held[-1 - pick % len(self.held)]
        self._exchange(held.worker, [(held, end)], 0, suspect=True)

    @step(
        4,
        needs_attempt=True,
        ends=st.lists(ENDS, min_size=1, max_size=4),
        wanted=st.integers(0, 3),
        worker=st.integers(0, 2),
    )
    def end_many(self, *, ends: list[End], wanted: int, worker: int) -> None:
        held = [held for held in self.held if held.worker == worker]
        self._exchange(worker, list(zip(held, ends, strict=False)), wanted, suspect=False)

    def _exchange(
        self, number: int, ending: Sequence[tuple[Held, End]], wanted: int, *, suspect: bool
    ) -> None:
        worker = self.workers[number]
        queue = self.world.queues[worker.queue.name]
        marker = f"{queue.prefix}marker"
        if wanted:
            # What woke it: an idle worker pops the marker, then takes.
            self.lab.run(self.lab.connection.reader.zrem(marker, "0"))
        how = [ending_of(held.job, end) for held, end in ending]
        wire = [wire_of(held.job, each) for (held, _), each in zip(ending, how, strict=True)]
        codes, jobs = self.lab.run(worker.exchange(wire, wanted, suspect=suspect))
        limits = worker.limits
        expected_codes, taken, is_limited = self.world.finish_and_take(
            queue,
            [
                (held.job.id.decode(), held.job.token.decode(), each)
                for (held, _), each in zip(ending, how, strict=True)
            ],
            wanted=wanted, token=worker.token.decode(), lock_ms=LOCK_MS, may_take_suspect=suspect,
            limit=(limits["max"], limits["duration"]) if limits else None,
        )  # fmt: skip
        assert codes == expected_codes
        assert [seen_by_worker(job) for job in jobs] == [stored(*each) for each in taken]
        assert worker.reply[5] == b""
        assert (worker.reply[3] > 0) == is_limited
        self.last_exchange[number] = (wire, wanted, suspect)
        gone = [held for held, _ in ending]
        self.held = [held for held in self.held if held not in gone]
        self.held += [Held(number, job) for job in jobs]
        if is_limited:
            self.excused.add(queue.name)
        if wanted and not jobs:
            self.told_due_ms[queue.name] = float(worker.reply[4]) or float("inf")
        for job, _ in taken:
            self._iterate(job, jobs)

    def _iterate(self, job: Job, jobs: list[TakenJob]) -> None:
        if job.schedule is None:
            return
        (taken,) = [each for each in jobs if each.id.decode() == job.id]
        self.lab.run(self.real[job.queue.name].schedules.iterate(taken))
        self.world.iterate(job)

    @step(number=st.integers(0, 2))
    def worker_sends_its_last_call_again(self, *, number: int) -> None:
        if number in self.last_exchange:
            worker = self.workers[number]
            wire, wanted, suspect = self.last_exchange[number]
            codes, jobs = worker.reply[0], [bytes(job_id) for job_id, _ in worker.reply[1]]
            locks = self.world.queues[worker.queue.name].locks
            still = [
                job_id for job_id in jobs
                if (lock := locks.get(job_id.decode())) and lock.token == worker.token.decode()
            ]  # fmt: skip
            first_reply = worker.reply
            again, taken = self.lab.run(worker.send_again(wire, wanted, suspect=suspect))
            assert again == codes
            assert [job.id for job in taken] == still
            worker.reply = first_reply

    @step(pick=PICKS)
    def a_call_arrives_once_more(self, *, pick: int) -> None:
        calls = [call for call in self.lab.lane_calls[-16:] if call.script != "finish_and_take"]
        if calls:
            call = calls[-1 - pick % len(calls)]
            memo_key, seq = call.args[1], call.args[2]
            newest = max(c.args[2] for c in self.lab.lane_calls if c.args[1] == memo_key)
            sent = scripts.run(self.lab.connection.call, call.script, call.meta_key, *call.args)
            try:
                answer = self.lab.run(sent)
            except ResponseError as error:
                answer = str(error)
            if seq == newest:
                assert answer == call.reply
            else:
                assert "LATE_CALL" in str(answer)

    # --- operators ----------------------------------------------------------------

    @step(queue=QUEUES)
    def pause(self, *, queue: str) -> None:
        self.lab.run(self.real[queue].pause())
        self.world.pause(self.world.queues[queue])

    @step(3, queue=QUEUES)
    def resume(self, *, queue: str) -> None:
        self.lab.run(self.real[queue].resume())
        self.world.resume(self.world.queues[queue])

    @step(queue=QUEUES, jobs=st.sampled_from([None, None, None, 1, 3]))
    def set_global_concurrency(self, *, queue: str, jobs: int | None) -> None:
        self.lab.run(self.real[queue].set_global_concurrency(jobs))
        self.world.queues[queue].concurrency = jobs

    @step(pick=PICKS)
    def promote(self, *, pick: int) -> None:
        queue, job_id = self._choose(pick, prefer=("delayed",))
        found = self.lab.run(self.real[queue.name].promote([job_id]))
        assert found == [self.world.promote(queue, job_id)]

    @step(pick=PICKS, delay_s=st.sampled_from([0, 1, 60]))
    def change_delay(self, *, pick: int, delay_s: int) -> None:
        queue, job_id = self._choose(pick, prefer=("delayed",))
        found = self.lab.run(self.real[queue.name].change_delay(job_id, delay_s))
        assert found == self.world.change_delay(queue, job_id, delay_s * 1_000)

    @step(pick=PICKS, priority=PRIORITIES, lifo=st.booleans())
    def change_priority(self, *, pick: int, priority: int, lifo: bool) -> None:
        queue, job_id = self._choose(pick, prefer=("wait", "prioritized"))
        found = self.lab.run(self.real[queue.name].change_priority(job_id, priority, lifo=lifo))
        assert found == self.world.change_priority(queue, job_id, priority, lifo=lifo)

    @step(pick=PICKS, value=st.integers(0, 9))
    def update_data(self, *, pick: int, value: int) -> None:
        queue, job_id = self._choose(pick)
        found = self.lab.run(self.real[queue.name].update_data(job_id, value))
        assert found == self.world.update_data(queue, job_id, str(value))

    @step(pick=PICKS, state=st.sampled_from(["failed", "completed"]), reset=st.booleans())
    def replay(self, *, pick: int, state: str, reset: bool) -> None:
        queue, job_id = self._choose(pick, prefer=(state,))
        found = self.lab.run(
            self.real[queue.name].replay([job_id], state=STATES[state], reset_attempts=reset)
        )
        assert found == [self.world.replay(queue, state, job_id, reset_attempts=reset)]

    @step(pick=PICKS)
    def cancel(self, *, pick: int) -> None:
        queue, job_id = self._choose(pick)
        found = self.lab.run(self.real[queue.name].cancel(job_id, "enough"))
        assert found == self.world.cancel(queue, job_id, "enough")

    @step(pick=PICKS)
    def detach(self, *, pick: int) -> None:
        queue, job_id = self._choose(pick, only=lambda job: job.parent is not None)
        found = self.lab.run(self.real[queue.name].detach(job_id))
        assert found == self.world.detach(queue, job_id)

    @step(pick=PICKS, children=st.booleans())
    def remove(self, *, pick: int, children: bool) -> None:
        queue, job_id = self._choose(pick)
        found = self.lab.run(self.real[queue.name].remove([job_id], children=children))
        assert found == [self.world.remove(queue, job_id, children=children)]

    @step(
        queue=QUEUES, state=st.sampled_from(list(STATES)),
        grace_s=st.sampled_from([0, 1, 600]), limit=st.sampled_from([1, 2, 1_000]),
    )  # fmt: skip
    def clean(self, *, queue: str, state: str, grace_s: int, limit: int) -> None:
        found = self.lab.run(self.real[queue].clean(STATES[state], grace=grace_s, limit=limit))
        model = self.world.queues[queue]
        assert found == self.world.clean(model, state, grace_s * 1_000, limit)

    @step(queue=QUEUES, delayed=st.booleans())
    def drain(self, *, queue: str, delayed: bool) -> None:
        found = self.lab.run(self.real[queue].drain(delayed=delayed))
        assert found == self.world.drain(self.world.queues[queue], delayed=delayed)

    # --- schedules ----------------------------------------------------------------

    @step(
        queue=QUEUES, schedule_id=st.sampled_from(["s", "t"]), name=NAMES,
        every_ms=st.sampled_from([None, 5_000, MINUTE_MS]), offset_ms=st.sampled_from([None, 1_000]),
        limit=st.sampled_from([None, None, 2]),
    )  # fmt: skip
    def upsert_schedule(
        self, *, queue: str, schedule_id: str, name: str, every_ms: int | None, offset_ms: int | None,
        limit: int | None,
    ) -> None:  # fmt: skip
        when: Every | Cron = Cron(CRON_PATTERN)
        if every_ms:
            when = Every(every_ms / 1_000, None if offset_ms is None else offset_ms / 1_000)
        self._both(
            lambda: self.real[queue].schedules.upsert(schedule_id, name, when=when, limit=limit),
            lambda: self.world.upsert_schedule(
                self.world.queues[queue], schedule_id, name,
                every_ms=every_ms, offset_ms=offset_ms, limit=limit,
            ),
        )  # fmt: skip

    @step(queue=QUEUES, schedule_id=st.sampled_from(["s", "t"]))
    def remove_schedule(self, *, queue: str, schedule_id: str) -> None:
        found = self.lab.run(self.real[queue].schedules.remove(schedule_id))
        assert found == self.world.remove_schedule(self.world.queues[queue], schedule_id)

    # --- help ---------------------------------------------------------------------

    def _choose(
        self, pick: int, *, prefer: Sequence[str] = (), only: Any = None
    ) -> tuple[Queue, str]:
        """A job's queue and id: one of those preferred in most cases, else any, or none there is."""
        jobs = [job for _, job in sorted(self.world.jobs.items())]
        if only is not None:
            jobs = [job for job in jobs if only(job)] or jobs
        wanted = [
            job for job in jobs
            if any(job.id in job.queue.members(suffix) for suffix in prefer)
        ]  # fmt: skip
        if wanted and pick % 8:
            jobs = wanted
        if not jobs or pick == 0:
            return self.world.queues["a"], "gone"
        job = jobs[pick % len(jobs)]
        return job.queue, job.id

    def _both(self, call: Any, model: Any, view: Any = lambda _: None) -> None:
        """Make a call that may be refused, and the model's; both do the same."""
        try:
            expected = model()
        except Refused:
            expected = Refused
        try:
            found = view(self.lab.run(call()))
        except (InvalidOption, JobNotFound):
            found = Refused
        assert found == expected

    # --- after each step ----------------------------------------------------------

    def check(self) -> None:
        """The whole key space is as the model says, and what must always hold does."""
        lab = self.lab
        lab.steps += 1
        found = lab.run(read_keyspace(lab.connection.reader))
        rest = self._check_other_keys(found)
        wrong = differences(expected_keys(self.world), rest)
        assert not wrong, f"not as the model says:\n{wrong}"
        for queue in self.world.queues.values():
            events = found.events.get(f"{queue.prefix}events", [])
            assert sorted(events) == sorted(queue.events)
            queue.events.clear()
            self._check_one_state_each(queue)
            self._check_markers(queue, found.keys.get(f"{queue.prefix}marker", []))

    def _check_other_keys(self, found: KeySpace) -> dict[str, Any]:
        """Keys that the model does not hold; gives the rest."""
        rest = dict(found.keys)
        rest.pop("tickbird:queues", None)
        for queue in self.world.queues.values():
            rest.pop(f"{queue.prefix}marker", None)
            rest.pop(f"{queue.prefix}stalled-check", None)
            expected = {"opts.maxLenEvents": "10000"}
            if queue.paused:
                expected["paused"] = "1"
            if queue.concurrency is not None:
                expected["concurrency"] = str(queue.concurrency)
            meta = rest.pop(f"{queue.prefix}meta", expected)
            assert meta == expected
        streams = {f"{queue.prefix}events" for queue in self.world.queues.values()}
        assert set(found.events) <= streams
        return rest

    def _check_one_state_each(self, queue: Queue) -> None:
        ids = [*queue.wait, *queue.active, *(i for s in queue.sets.values() for i in s)]
        known = [job.id for job in self.world.jobs.values() if job.queue is queue]
        assert sorted(ids) == sorted(known)

    def _check_markers(self, queue: Queue, marker: list[tuple[str, float]]) -> None:
        """Nothing that can be done waits without somebody who is told."""
        scores = dict(marker)
        assert set(scores) <= {"0", "1"}
        if "0" in scores:
            assert not queue.paused
            self.excused.discard(queue.name)
        if queue.is_held:
            return
        if queue.wait or queue.prioritized:
            assert "0" in scores or queue.name in self.excused, "work waits, nobody is woken"
        elif queue.delayed and "0" not in scores:
            due_ms = in_order(queue.delayed)[0][1] / 4096
            told_ms = self.told_due_ms.get(queue.name, float("inf"))
            assert min(scores.get("1", float("inf")), told_ms) <= due_ms, "nobody knows when"


_ANY_STEP = _one_of(_STEPS)
_STEP_WITHOUT_ATTEMPT = _one_of([each for each in _STEPS if not each.needs_attempt])
