"""What the calls are to make of queues, told in plain data after BullMQ's layout.

A World holds queues and jobs; each public call is one method that moves them. layout.py says which
keys then stand in Redis; events are collected per queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from tests.model.parts import (
    Deduplication,
    Ending,
    Job,
    Link,
    Lock,
    NewJob,
    Owner,
    Queue,
    Schedule,
    in_order,
)
from tickbird.stats import bucket_of

STALL_LIMIT = 3
STALLED_TOO_OFTEN = "job stalled more than allowable limit"
CRON_PATTERN = "* * * * *"
DONE, LOCK_LOST, _, VANISHED, CHILDREN_PENDING, CHILDREN_FAILED = range(6)
"""What is answered for an ended attempt."""

_MINUTE_MS = 60_000
_SLOTS = 32


class Refused(Exception):
    """The call is to raise, and to write nothing."""


class World:
    """All queues of one prefix, and the time it is."""

    def __init__(self, prefix: str, now_ms: int, queues: Iterable[str]) -> None:
        self.now_ms = now_ms
        self.jobs: dict[str, Job] = {}
        self.queues = {name: Queue(name, prefix) for name in queues}
        self._of_prefix = {queue.prefix: queue for queue in self.queues.values()}

    # --- adding -------------------------------------------------------------------

    def add(self, queue: Queue, new: NewJob) -> tuple[str, bool]:
        """The id of the job that is there now, and whether it was made."""
        queue.counter += 1
        job_id = new.id or str(queue.counter)
        key = queue.prefix + job_id
        if new.id and key in self.jobs:
            self._meet(queue, self.jobs[key], new)
            return job_id, False
        if new.dedup is not None:
            owner = self._deduplicate(queue, new, job_id)
            if owner is not None:
                return owner, False
        self._store(queue, new, job_id)
        return job_id, True

    def add_all(self, news: Sequence[tuple[Queue, NewJob]]) -> list[tuple[str, bool]]:
        """Add jobs of one call, parents before their children; all of them or none."""
        links: dict[str, Link | None] = {}
        for queue, new in news:
            key = queue.prefix + new.id
            if new.parent is not None:
                if new.parent.key.count(":") > 2:
                    raise Refused("an iteration cannot have children")
                if new.parent.key not in self.jobs and new.parent.key not in links:
                    raise Refused(f"there is no job {new.parent.key}")
                known = self.jobs.get(key)
                other = links.get(key) or (known and known.parent)
                if other and other.key != new.parent.key and other.key in {*self.jobs, *links}:
                    raise Refused(f"{key} is a child of {other.key}")
            if new.id:
                links[key] = new.parent or links.get(key)
        answers = [self.add(queue, new) for queue, new in news]
        for queue, new in news:
            if new.parent is not None:
                self._release_if_done(new.parent.key)
            if new.has_children:
                self._release_if_done(queue.prefix + new.id)
        return answers

    def _store(self, queue: Queue, new: NewJob, job_id: str) -> None:
        job = Job(
            id=job_id, queue=queue, name=new.name, data=new.data, options=new.options,
            timestamp_ms=self.now_ms, delay_ms=new.delay_ms, priority=new.priority,
            parent=new.parent, schedule=new.schedule, dedup=new.dedup and new.dedup.key,
        )  # fmt: skip
        self.jobs[job.key] = job
        queue.tell("added", jobId=job_id, name=new.name)
        queue.count(f"added:{queue.counted(new.name)}")
        if new.has_children:
            queue.waiting_children[job_id] = self.now_ms
            queue.tell("waiting-children", jobId=job_id)
        elif new.delay_ms:
            queue.delay(job, self.now_ms + new.delay_ms)
        else:
            queue.push(job, front=new.lifo)
            queue.tell("waiting", jobId=job_id)
        if new.parent is not None and new.parent.key in self.jobs:
            self.jobs[new.parent.key].pending.add(job.key)

    def _meet(self, queue: Queue, job: Job, new: NewJob) -> None:
        """An id that is taken: nothing is made, but the job may become a child."""
        if new.parent is not None:
            parent = self.jobs[new.parent.key]
            if job.id in queue.completed and job.result is not None:
                parent.processed[job.key] = job.result
            else:
                parent.pending.add(job.key)
            job.parent = new.parent
        queue.tell("duplicated", jobId=job.id)

    # --- deduplication ------------------------------------------------------------

    def _deduplicate(self, queue: Queue, new: NewJob, job_id: str) -> str | None:
        """The id of the job that stands for the new one; None when the new one is to be made."""
        dedup = new.dedup
        assert dedup is not None
        key = dedup.key
        ends_ms = self.now_ms + dedup.ttl_ms if dedup.ttl_ms and not dedup.keep_last else None
        owner = queue.owners.get(key)
        if owner and owner.ends_ms is None and queue.prefix + owner.id not in self.jobs:
            queue.proposals.pop(key, None)
            owner = None
        if owner is None:
            queue.owners[key] = Owner(job_id, ends_ms)
            return None
        if dedup.replace and owner.id in queue.delayed:
            self._replace(queue, dedup, owner, job_id, ends_ms)
            return None
        if dedup.keep_last and owner.id in queue.active:
            queue.proposals[key] = (job_id, new)
            owner.ends_ms = None
            queue.tell(
                "deduplicated", jobId=owner.id, deduplicationId=key, deduplicatedJobId=job_id
            )
            return owner.id
        if dedup.replace:
            return owner.id
        if dedup.extend and ends_ms is not None:
            owner.ends_ms = ends_ms
        if dedup.reschedule and owner.id in queue.delayed:
            delayed = self.jobs[queue.prefix + owner.id]
            del queue.delayed[owner.id]
            delayed.delay_ms = new.delay_ms
            queue.delay(delayed, self.now_ms + new.delay_ms)
        queue.tell("deduplicated", jobId=owner.id, deduplicationId=key, deduplicatedJobId=job_id)
        return owner.id

    def _replace(
        self, queue: Queue, dedup: Deduplication, owner: Owner, job_id: str, ends_ms: int | None
    ) -> None:
        """The delayed owner gives way to the new job."""
        del queue.delayed[owner.id]
        self._leave_parent(self.jobs[queue.prefix + owner.id])
        del self.jobs[queue.prefix + owner.id]
        queue.tell("removed", jobId=owner.id, prev="delayed")
        queue.tell(
            "deduplicated", jobId=job_id, deduplicationId=dedup.key, deduplicatedJobId=owner.id
        )
        queue.proposals.pop(dedup.key, None)
        kept = owner.ends_ms if owner.ends_ms is not None and not dedup.extend else ends_ms
        queue.owners[dedup.key] = Owner(job_id, kept)

    def _release_dedup(self, job: Job) -> None:
        """A job has finished: its key goes, unless it has a time; the last proposal is added."""
        queue, key = job.queue, job.dedup
        if key is None:
            return
        owner = queue.owners.get(key)
        if owner and owner.ends_ms is None and owner.id == job.id:
            del queue.owners[key]
        if key in queue.proposals:
            job_id, new = queue.proposals.pop(key)
            queue.counter += 1
            if queue.prefix + job_id in self.jobs:
                queue.tell("duplicated", jobId=job_id)
                return
            queue.owners[key] = Owner(job_id, None)
            self._store(queue, new, job_id)

    def _drop_dedup(self, job: Job) -> None:
        """A job is removed: so are the key it owns and the proposal beside it."""
        queue, key = job.queue, job.dedup
        if key in queue.owners and queue.owners[key].id == job.id:
            del queue.owners[key]
            queue.proposals.pop(key, None)

    # --- taking and ending --------------------------------------------------------

    def take(
        self, queue: Queue, wanted: int, token: str, lock_ms: int, *, may_take_suspect: bool = True,
        limit: tuple[int, int] | None = None,
    ) -> tuple[list[tuple[Job, dict[str, Any]]], bool]:  # fmt: skip
        """The jobs taken, each with its hash before; and whether a rate limit forbids more."""
        self._promote_due(queue)
        allowed = 0 if queue.paused else wanted
        if queue.concurrency is not None:
            allowed = min(allowed, queue.concurrency - len(queue.active))
        used = queue.limiter[0] if queue.limiter else 0
        if limit is not None and not queue.paused:
            if used >= limit[0]:
                return [], True
            allowed = min(allowed, limit[0] - used)
        taken: list[tuple[Job, dict[str, Any]]] = []
        started = 0
        while len(taken) < allowed:
            job = self._pop(queue)
            if job is None:
                queue.turns = 0
                break
            if (job.stalls or 0) >= 2 and job.deferred is None and not may_take_suspect:
                job.delay_ms = 1_000
                queue.delay(job, self.now_ms + 1_000)
                continue
            if (job.stalls or 0) >= 2:
                may_take_suspect = False
            taken.append((job, {**job.hash(), "wait_ms": job.wait_ms(self.now_ms)}))
            started += job.deferred is None
            queue.active.append(job.id)
            queue.locks[job.id] = Lock(token, self.now_ms + lock_ms)
            job.started_ms = self.now_ms
            job.starts = (job.starts or 0) + 1
            queue.tell("active", jobId=job.id, prev="waiting")
        if limit is not None and started:
            ends_ms = queue.limiter[1] if queue.limiter else self.now_ms + limit[1]
            queue.limiter = (used + started, ends_ms)
        return taken, False

    def _promote_due(self, queue: Queue) -> None:
        for job_id, score in in_order(queue.delayed):
            due_ms = int(score // 4096)
            if due_ms > self.now_ms:
                break
            del queue.delayed[job_id]
            job = self.jobs[queue.prefix + job_id]
            job.delay_ms, job.ready_ms = 0, due_ms
            queue.push(job)
            queue.tell("waiting", jobId=job_id, prev="delayed")

    def _pop(self, queue: Queue) -> Job | None:
        if queue.wait:
            return self.jobs[queue.prefix + queue.wait.pop(0)]
        if queue.prioritized:
            first, _ = in_order(queue.prioritized)[0]
            del queue.prioritized[first]
            return self.jobs[queue.prefix + first]
        return None

    def finish_and_take(
        self, queue: Queue, endings: Sequence[tuple[str, str, Ending]], **how: Any
    ) -> tuple[list[int], list[tuple[Job, dict[str, Any]]], bool]:
        """End attempts (id, token, how), then take `wanted` jobs."""
        codes = [self._finish(queue, *ending) for ending in endings]
        has_finished = False
        for code, (_, _, ending) in zip(codes, endings, strict=True):
            if code == DONE and ending.outcome in ("completed", "failed"):
                has_finished = True
                if ending.keep_count:
                    self._trim(queue, ending)
        taken, is_limited = self.take(queue, **how) if how["wanted"] else ([], False)
        is_empty = not (queue.wait or queue.prioritized or queue.active)
        # Who looked for more and was told when there will be some has not drained it.
        is_empty = is_empty and not (how["wanted"] and queue.delayed)
        later = bool(how["wanted"] and queue.delayed)
        if not taken and has_finished and is_empty and not later:
            queue.tell("drained")
        return codes, taken, is_limited

    def _finish(self, queue: Queue, job_id: str, token: str, how: Ending) -> int:
        job = self.jobs.get(queue.prefix + job_id)
        if job is None:
            queue.count("vanished")
            return VANISHED
        lock = queue.locks.get(job_id)
        if lock is None or lock.token != token:
            return LOCK_LOST
        if how.outcome in ("completed", "waiting_children") and job.unsuccessful:
            return CHILDREN_FAILED
        if how.outcome == "completed" and job.pending:
            return CHILDREN_PENDING
        del queue.locks[job_id]
        queue.active.remove(job_id)
        self._ends[how.outcome](self, job, how)
        return DONE

    def _complete(self, job: Job, how: Ending) -> None:
        queue = job.queue
        self._release_dedup(job)
        parent = self._parent_that_waits_for(job)
        if parent is not None:
            parent.pending.remove(job.key)
            parent.processed[job.key] = how.text
            self._release_if_done(parent.key)
        job.attempts_made = (job.attempts_made or 0) + 1
        job.result = how.text
        self._keep(job, queue.completed, how)
        queue.tell("completed", jobId=job.id, returnvalue=how.text, prev="active")
        self._count_attempt(job, how, "completed")

    def _fail(self, job: Job, how: Ending, *, unstarted: bool = False) -> None:
        queue = job.queue
        self._release_dedup(job)
        self._tell_parent_of_failure(job, how.text)
        made = (job.attempts_made or 0) + (not unstarted)
        job.attempts_made = made
        self._note_failure(job, how)
        job.deferred = None
        self._keep(job, queue.failed, how)
        queue.tell("failed", jobId=job.id, failedReason=how.text, prev="active")
        if not unstarted:
            if made >= how.attempts:
                queue.tell("retries-exhausted", jobId=job.id, attemptsMade=made)
            self._count_attempt(job, how, "failed")
        queue.count(f"dead:{how.reason}:{queue.counted(job.name)}")

    def _retry(self, job: Job, how: Ending) -> None:
        job.attempts_made = (job.attempts_made or 0) + 1
        self._note_failure(job, how)
        job.ready_ms = self.now_ms + how.delay_ms
        if how.delay_ms:
            job.delay_ms = how.delay_ms
            job.queue.delay(job, job.ready_ms)
        else:
            job.queue.push(job, front=how.lifo)
            job.queue.tell("waiting", jobId=job.id, prev="active")
        self._count_attempt(job, how, "retried")

    def _postpone(self, job: Job, how: Ending) -> None:
        job.delay_ms, job.ready_ms = how.delay_ms, self.now_ms + how.delay_ms
        job.queue.delay(job, job.ready_ms)

    def _hand_back(self, job: Job, how: Ending) -> None:
        if how.delay_ms:
            job.queue.limiter = (2**53 - 1, self.now_ms + how.delay_ms)
        if not how.started:
            job.starts = (job.starts or 0) - 1
        job.ready_ms = self.now_ms
        job.queue.put_back(job)
        job.queue.tell("waiting", jobId=job.id, prev="active")

    def _wait_for_children(self, job: Job, _: Ending) -> None:
        job.queue.waiting_children[job.id] = self.now_ms
        job.queue.tell("waiting-children", jobId=job.id, prev="active")
        self._release_if_done(job.key)

    _ends: ClassVar[dict[str, Callable[[World, Job, Ending], None]]] = {
        "completed": _complete,
        "failed": _fail,
        "retried": _retry,
        "postponed": _postpone,
        "handed_back": _hand_back,
        "waiting_children": _wait_for_children,
    }

    def _note_failure(self, job: Job, how: Ending) -> None:
        job.reason = how.text
        if how.traces:
            job.traces = how.traces

    def _count_attempt(self, job: Job, how: Ending, outcome: str) -> None:
        queue = job.queue
        name = queue.counted(job.name)
        queue.count(f"run:{outcome}:{bucket_of(how.run_ms)}:{name}")
        queue.count(f"run_ms:{outcome}:{name}", how.run_ms)
        if how.wait_ms is not None:
            queue.count(f"wait:{bucket_of(how.wait_ms)}:{name}")
            queue.count(f"wait_ms:{name}", how.wait_ms)

    def _keep(self, job: Job, finished: dict[str, float], how: Ending) -> None:
        if how.keep_count == 0:
            del self.jobs[job.key]
        else:
            finished[job.id] = job.finished_ms = self.now_ms

    def _trim(self, queue: Queue, how: Ending) -> None:
        """Of the finished jobs, those that are too old go, then those beyond the newest so many."""
        finished = queue.completed if how.outcome == "completed" else queue.failed
        by_age = in_order(finished)
        excess = len(by_age) - how.keep_count if how.keep_count > 0 else 0
        oldest_ms = self.now_ms - how.keep_age_s * 1_000 if how.keep_age_s else 0
        for place, (job_id, finished_ms) in enumerate(by_age):
            if place < excess or finished_ms <= oldest_ms:
                del finished[job_id]
                job = self.jobs.pop(queue.prefix + job_id)
                self._leave_parent(job)

    # --- parents ------------------------------------------------------------------

    def _parent_that_waits_for(self, job: Job) -> Job | None:
        parent = self.jobs.get(job.parent.key) if job.parent else None
        return parent if parent and job.key in parent.pending else None

    def _release_if_done(self, parent_key: str) -> None:
        parent = self.jobs.get(parent_key)
        if parent is not None and not parent.pending:
            self._release(parent)

    def _release(self, parent: Job) -> None:
        queue = parent.queue
        if queue.waiting_children.pop(parent.id, None) is None:
            return
        parent.ready_ms = self.now_ms + parent.delay_ms
        if parent.delay_ms:
            queue.delayed[parent.id] = parent.ready_ms * 4096
            queue.tell("delayed", jobId=parent.id, delay=parent.ready_ms)
        else:
            queue.push(parent, front=True)
            queue.tell("waiting", jobId=parent.id, prev="waiting-children")

    def _tell_parent_of_failure(self, job: Job, reason: str) -> None:
        parent = self._parent_that_waits_for(job)
        flag = job.parent.flag if job.parent else ""
        if parent is None or not flag:
            return
        parent.pending.remove(job.key)
        if flag == "fpof":
            parent.unsuccessful[job.key] = self.now_ms
            self._fail_parent(parent, job)
        elif flag == "cpof":
            parent.ignored[job.key] = reason
            self._release(parent)
        else:
            if flag == "idof":
                parent.ignored[job.key] = reason
            self._release_if_done(parent.key)

    def _fail_parent(self, parent: Job, job: Job) -> None:
        queue = parent.queue
        if parent.id in queue.failed:
            return
        parent.deferred = f"child {job.key} failed"
        if queue.delayed.pop(parent.id, None) is not None:
            queue.waiting_children[parent.id] = self.now_ms
        if parent.id in queue.waiting_children:
            parent.delay_ms = 0
            self._release(parent)

    def _leave_parent(self, job: Job) -> None:
        """The parent waits no longer for a job that goes; what it was told before stays."""
        parent = self._parent_that_waits_for(job)
        if parent is not None:
            parent.pending.remove(job.key)
            self._release_if_done(parent.key)

    def _forget_child(self, job: Job) -> None:
        """The parent knows of the job no more."""
        parent = self.jobs.get(job.parent.key) if job.parent else None
        if parent is not None:
            for relation in (parent.processed, parent.ignored, parent.unsuccessful):
                relation.pop(job.key, None)
            self._leave_parent(job)

    # --- stalled ------------------------------------------------------------------

    def recover(self, queue: Queue, chosen_delay_ms: Callable[[str], int]) -> list[str]:
        """Bring back jobs whose lock has run out; suspects wait for a time chosen at random."""
        deadlines = {job_id: lock.deadline_ms for job_id, lock in queue.locks.items()}
        expired = [i for i, ends_ms in in_order(deadlines) if ends_ms <= self.now_ms]
        recovered = [job_id for job_id in expired if job_id in queue.active]
        for job_id in expired:
            del queue.locks[job_id]
        for job_id in recovered:
            queue.active.remove(job_id)
            job = self.jobs[queue.prefix + job_id]
            job.stalls = (job.stalls or 0) + 1
            if 2 <= job.stalls <= STALL_LIMIT:
                job.delay_ms = chosen_delay_ms(job.key)
                assert 1_000 <= job.delay_ms <= 1_000 * 2**job.stalls
                job.ready_ms = self.now_ms + job.delay_ms
                queue.delay(job, job.ready_ms)
            else:
                if job.stalls > STALL_LIMIT:
                    job.deferred = STALLED_TOO_OFTEN
                job.ready_ms = self.now_ms
                queue.wait.insert(0, job_id)
                queue.tell("waiting", jobId=job_id, prev="active")
            queue.tell("stalled", jobId=job_id)
            queue.count("stalled")
        return recovered

    def recover_abroad(self, queue: Queue, job_id: str) -> None:
        """Another client's stall check has been faster; our deadline stays behind."""
        queue.active.remove(job_id)
        queue.wait.insert(0, job_id)
        job = self.jobs[queue.prefix + job_id]
        job.stalls = (job.stalls or 0) + 1

    # --- one job ------------------------------------------------------------------

    def promote(self, queue: Queue, job_id: str) -> bool:
        if queue.delayed.pop(job_id, None) is None:
            return False
        job = self.jobs[queue.prefix + job_id]
        job.delay_ms, job.ready_ms = 0, self.now_ms
        queue.push(job)
        queue.tell("waiting", jobId=job_id, prev="delayed")
        return True

    def change_delay(self, queue: Queue, job_id: str, delay_ms: int) -> bool:
        if queue.delayed.pop(job_id, None) is None:
            return False
        job = self.jobs[queue.prefix + job_id]
        job.delay_ms, job.ready_ms = delay_ms, self.now_ms + delay_ms
        queue.delay(job, job.ready_ms)
        return True

    def change_priority(self, queue: Queue, job_id: str, priority: int, *, lifo: bool) -> bool:
        job = self.jobs.get(queue.prefix + job_id)
        if job is None:
            return False
        waits = queue.prioritized.pop(job_id, None) is not None or job_id in queue.wait
        if job_id in queue.wait:
            queue.wait.remove(job_id)
        job.priority = priority
        if waits and lifo:
            queue.put_back(job)
        elif waits:
            queue.push(job)
        return True

    def update_data(self, queue: Queue, job_id: str, data: str) -> bool:
        job = self.jobs.get(queue.prefix + job_id)
        if job is not None:
            job.data = data
        return job is not None

    def replay(self, queue: Queue, state: str, job_id: str, *, reset_attempts: bool) -> bool:
        if queue.sets[state].pop(job_id, None) is None:
            return False
        job = self.jobs[queue.prefix + job_id]
        job.finished_ms = job.started_ms = job.reason = job.result = None
        job.deferred = job.stalls = None
        if reset_attempts:
            job.attempts_made = job.starts = None
        job.replays = (job.replays or 0) + 1
        job.ready_ms = self.now_ms
        parent = self.jobs.get(job.parent.key) if job.parent else None
        if parent is not None:
            for relation in (parent.processed, parent.ignored, parent.unsuccessful):
                if relation.pop(job.key, None) is not None:
                    parent.pending.add(job.key)
        queue.push(job)
        queue.tell("waiting", jobId=job_id, prev=state)
        queue.count(f"replayed:{state}")
        return True

    def cancel(self, queue: Queue, job_id: str, reason: str) -> bool:
        job = self.jobs.get(queue.prefix + job_id)
        if job is None:
            return False
        lock = queue.locks.get(job_id)
        if lock and lock.token:
            queue.cancels[job_id] = f"{lock.token}|{reason}"
            return True
        if job_id in {*queue.active, *queue.completed, *queue.failed}:
            return False
        if queue.is_next_iteration(job_id):
            return False
        queue.leave(job_id)
        traces = f'["JobCancelled: {reason}"]'
        ending = Ending(outcome="failed", text=reason, traces=traces, reason="cancelled")
        self._fail(job, ending, unstarted=True)
        return True

    def detach(self, queue: Queue, job_id: str) -> bool:
        job = self.jobs.get(queue.prefix + job_id)
        if job is None or job.parent is None:
            return False
        self._forget_child(job)
        job.parent = None
        return True

    def remove(self, queue: Queue, job_id: str, *, children: bool) -> str:
        job = self.jobs.get(queue.prefix + job_id)
        if job is None:
            return "missing"
        if self._is_locked(job):
            return "locked"
        if queue.is_next_iteration(job_id) and job.finished_ms is None:
            return "next_iteration"
        if children:
            if any(self._is_locked(child) for child in self._pending_family(job)):
                return "child_locked"
            self._remove_children(job)
        self._remove_alone(job)
        return "removed"

    def _is_locked(self, job: Job) -> bool:
        lock = job.queue.locks.get(job.id)
        return lock is not None and lock.token is not None

    def _pending_family(self, job: Job) -> Iterator[Job]:
        for key in job.pending:
            if key in self.jobs:
                yield self.jobs[key]
                yield from self._pending_family(self.jobs[key])

    def _remove_children(self, job: Job) -> None:
        # Those it waits for last: with the last of them the job is released.
        for relation in (job.processed, job.ignored, job.unsuccessful, job.pending):
            for key in list(relation):
                child = self.jobs.get(key)
                if child is not None and not self._is_locked(child):
                    self._remove_children(child)
                    self._remove_alone(child)
            relation.clear()

    def _remove_alone(self, job: Job) -> None:
        queue = job.queue
        self._forget_child(job)
        self._drop_dedup(job)
        state = queue.leave(job.id)
        del self.jobs[job.key]
        queue.tell("removed", jobId=job.id, prev=state)
        self._count_removed(queue, state, 1)

    def _count_removed(self, queue: Queue, state: str, number: int) -> None:
        names = {"wait": "waiting", "waiting-children": "waiting_children"}
        queue.count(f"removed:{names.get(state, state)}", number)

    # --- a whole queue ------------------------------------------------------------

    def pause(self, queue: Queue) -> None:
        if not queue.paused:
            queue.paused = True
            queue.tell("paused")

    def resume(self, queue: Queue) -> None:
        if queue.paused:
            queue.paused = False
            queue.tell("resumed")

    def clean(self, queue: Queue, state: str, grace_ms: int, limit: int) -> int:
        going = [
            i for i in self._first_to_last(queue, state) if self._is_old(queue, i, state, grace_ms)
        ]
        going = going[:limit]
        self._delete(queue, state, going)
        if going:
            queue.tell("cleaned", count=len(going))
        return len(going)

    def _is_old(self, queue: Queue, job_id: str, state: str, grace_ms: int) -> bool:
        job = self.jobs[queue.prefix + job_id]
        if state not in ("completed", "failed") and queue.is_next_iteration(job_id):
            return False
        if state == "active" and self._is_locked(job):
            return False
        born_ms = job.timestamp_ms
        since_ms = {
            "delayed": job.started_ms or born_ms,
            "prioritized": born_ms,
        }.get(state, job.finished_ms or job.started_ms or born_ms)
        return since_ms <= self.now_ms - grace_ms

    def _first_to_last(self, queue: Queue, state: str) -> list[str]:
        if state == "wait":
            return list(queue.wait)
        if state == "active":
            return list(queue.active)
        return [job_id for job_id, _ in in_order(queue.sets[state])]

    def drain(self, queue: Queue, *, delayed: bool) -> int:
        drained = 0
        for state in ("wait", "prioritized", *(["delayed"] if delayed else [])):
            ids = self._first_to_last(queue, state)
            going = [job_id for job_id in ids if not queue.is_next_iteration(job_id)]
            self._delete(queue, state, going)
            drained += len(going)
        return drained

    def _delete(self, queue: Queue, state: str, ids: Sequence[str]) -> None:
        for job_id in ids:
            queue.leave(job_id)
        for job_id in ids:
            job = self.jobs[queue.prefix + job_id]
            self._leave_parent(job)
            self._drop_dedup(job)
        for job_id in ids:
            del self.jobs[queue.prefix + job_id]
        self._count_removed(queue, state, len(ids))

    # --- schedules ----------------------------------------------------------------

    def upsert_schedule(
        self, queue: Queue, schedule_id: str, name: str, *, every_ms: int | None,
        offset_ms: int | None, limit: int | None,
    ) -> None:  # fmt: skip
        """`every_ms` None: a cron schedule of each minute."""
        known = queue.schedules.get(schedule_id)
        due_ms, kept_offset_ms = self._first_due(known, every_ms, offset_ms)
        pending = (
            self.jobs.get(f"{queue.prefix}repeat:{schedule_id}:{known.due_ms}") if known else None
        )
        if pending is not None and pending.id not in {
            *queue.delayed,
            *queue.prioritized,
            *queue.wait,
        }:
            pending = None  # it runs, or has finished: it stays
        for slot in range(_SLOTS if every_ms else 1):
            slot_ms = due_ms + slot * (every_ms or 0)
            job = self.jobs.get(f"{queue.prefix}repeat:{schedule_id}:{slot_ms}")
            if job is None or job is pending:
                break
        else:
            raise Refused("its jobs are there already")
        if pending is not None:
            queue.leave(pending.id)
            del self.jobs[pending.key]
        repeat = {"every": every_ms} if every_ms else {"pattern": CRON_PATTERN, "tz": "UTC"}
        repeat |= {} if limit is None else {"limit": limit}
        template = {"attempts": 0, "tb": 1}
        queue.schedules[schedule_id] = Schedule(
            slot_ms,
            {
                "name": name,
                **{field_name: str(value) for field_name, value in repeat.items()},
                "offset": str(kept_offset_ms),
                "opts": template,
            },
            known.iterations if known else 1,
        )
        self._add_iteration(
            queue, schedule_id, slot_ms, name=name, options=template, repeat={**repeat, "count": 1}
        )

    def _first_due(
        self, known: Schedule | None, every_ms: int | None, offset_ms: int | None
    ) -> tuple[int, int]:
        if every_ms is None:
            return self.now_ms - self.now_ms % _MINUTE_MS + _MINUTE_MS, 0
        kept = int(known.record["offset"]) if known else None
        if known and known.record.get("every") == str(every_ms):
            return known.due_ms, int(known.record["offset"])
        due_ms = (
            self.now_ms if offset_ms is None else next_slot_ms(self.now_ms, every_ms, offset_ms)
        )
        return due_ms, due_ms % every_ms if kept is None or offset_ms is not None else kept

    def _add_iteration(
        self, queue: Queue, schedule_id: str, due_ms: int, *, name: str, options: dict[str, Any],
        repeat: dict[str, Any],
    ) -> None:  # fmt: skip
        delay_ms = max(0, due_ms - self.now_ms)
        marks = {
            "jobId": f"repeat:{schedule_id}:{due_ms}",
            "repeatJobKey": schedule_id,
            "timestamp": self.now_ms,
            "delay": delay_ms,
            "repeat": repeat,
            **({"prevMillis": due_ms} if "pattern" in repeat else {}),
        }
        new = NewJob(
            id=marks["jobId"], name=name, options={**options, **marks}, delay_ms=delay_ms,
            schedule=schedule_id,
        )  # fmt: skip
        self.add(queue, new)

    def iterate(self, job: Job) -> None:
        """Add the iteration after a taken one."""
        queue, schedule_id = job.queue, job.schedule
        schedule = queue.schedules.get(schedule_id or "")
        repeat = job.options["repeat"]
        if schedule is None or schedule_id is None:
            return
        due_ms = int(job.id.rpartition(":")[2])
        limit = schedule.record.get("limit", repeat.get("limit"))
        if limit is not None and repeat["count"] >= int(limit):
            return
        every_ms = int(schedule.record.get("every", 0))
        if every_ms:
            next_ms = due_ms + every_ms
            if next_ms < self.now_ms:
                next_ms = next_slot_ms(self.now_ms, every_ms, int(schedule.record["offset"]))
        else:
            latest_ms = max(self.now_ms, due_ms)
            next_ms = latest_ms - latest_ms % _MINUTE_MS + _MINUTE_MS
        if schedule.due_ms != due_ms:
            return
        next_id = f"repeat:{schedule_id}:{next_ms}"
        if queue.prefix + next_id in self.jobs:
            queue.tell("duplicated", jobId=next_id)
            return
        schedule.due_ms = next_ms
        schedule.iterations += 1
        repeat = {**repeat, "count": repeat["count"] + 1}
        self._add_iteration(
            queue,
            schedule_id,
            next_ms,
            name=schedule.record["name"],
            options=job.options,
            repeat=repeat,
        )

    def remove_schedule(self, queue: Queue, schedule_id: str) -> bool:
        schedule = queue.schedules.pop(schedule_id, None)
        if schedule is None:
            return False
        pending_id = f"repeat:{schedule_id}:{schedule.due_ms}"
        if queue.delayed.pop(pending_id, None) is not None:
            del self.jobs[queue.prefix + pending_id]
            queue.tell("removed", jobId=pending_id, prev="delayed")
        return True

    # --- time ---------------------------------------------------------------------

    def advance(self, ms: int, margin_ms: int) -> None:
        """Let time pass, and a little more rather than stop just before something ends."""
        target_ms = self.now_ms + ms
        for queue in self.queues.values():
            ends = [owner.ends_ms for owner in queue.owners.values() if owner.ends_ms]
            ends += [queue.limiter[1]] if queue.limiter else []
            for ends_ms in sorted(ends):
                if target_ms < ends_ms <= target_ms + margin_ms:
                    target_ms = ends_ms
        self.now_ms = target_ms
        for queue in self.queues.values():
            for key, owner in list(queue.owners.items()):
                if owner.ends_ms is not None and owner.ends_ms <= target_ms:
                    del queue.owners[key]
            if queue.limiter and queue.limiter[1] <= target_ms:
                queue.limiter = None


def next_slot_ms(now_ms: int, every_ms: int, offset_ms: int) -> int:
    """The first time after now that is `offset_ms` past a multiple of the interval."""
    slot_ms = now_ms - now_ms % every_ms + offset_ms % every_ms
    return slot_ms if slot_ms > now_ms else slot_ms + every_ms
