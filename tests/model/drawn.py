"""What the machine draws, and how it is said to the model and to the queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.factories import ended
from tests.model.model import Job
from tests.model.parts import Deduplication, Ending, Link, NewJob
from tickbird import FlowNode, JobState
from tickbird.flow import OnFailure
from tickbird.options import Dedup
from tickbird.stats import bucket_of
from tickbird.storage.wire import EndedAttempt, TakenJob

MINUTE_MS, HOUR_MS = 60_000, 3_600_000

FLAGS: dict[OnFailure | None, str] = {
    None: "",
    "fail_parent": "fpof",
    "continue_parent": "cpof",
    "ignore": "idof",
    "remove": "rdof",
}
STATES = {
    "wait": JobState.WAITING,
    "prioritized": JobState.PRIORITIZED,
    "delayed": JobState.DELAYED,
    "active": JobState.ACTIVE,
    "completed": JobState.COMPLETED,
    "failed": JobState.FAILED,
}


@dataclass
class Node:
    """A node of a flow to be; without an id it is given one."""

    queue: str
    id: str
    flag: OnFailure | None
    priority: int
    delay_s: int
    children: list[Node] = field(default_factory=list)

    def walk(self, parent: Node | None = None) -> Iterator[tuple[Node, Node | None]]:
        yield self, parent
        for child in self.children:
            yield from child.walk(self)


# --- what is drawn --------------------------------------------------------------------

NAMES = st.sampled_from(["mail", "video"])
QUEUES = st.sampled_from("aaab")
WORKERS = st.sampled_from([0, 0, 0, 1, 2, 2])
PICKS = st.integers(0, 63)
PRIORITIES = st.sampled_from([0, 0, 0, 1, 2, 7])
DELAYS_S = st.sampled_from([0, 0, 0, 1, 60])
CUSTOM_IDS = st.sampled_from(["", "", "", "c0", "c1", "c2"])
ON_FAILURE = st.sampled_from(list(FLAGS))


def _nodes(children: st.SearchStrategy[list[Node]]) -> st.SearchStrategy[Node]:
    return st.builds(
        Node, queue=QUEUES, id=CUSTOM_IDS, flag=ON_FAILURE, priority=PRIORITIES, delay_s=DELAYS_S,
        children=children,
    )  # fmt: skip


_LEAVES = _nodes(st.builds(list))
TREES = _nodes(st.lists(_nodes(st.lists(_LEAVES, max_size=1)), min_size=1, max_size=3))
DEDUPS = st.builds(
    lambda key, hours, flags: Dedup(
        key,
        ttl=f"{hours}h" if hours else None,
        **{flag: True for flag in flags if flag != "extend" or hours},
    ),
    st.sampled_from("kkkl"),
    st.sampled_from([0, 0, 1, 5]),
    st.sampled_from(
        [
            (),
            ("extend",),
            ("replace",),
            ("replace", "extend"),
            ("keep_last",),
            ("keep_last",),
            ("keep_last", "replace"),
            ("keep_last", "extend"),
            ("keep_last", "reschedule"),
            ("reschedule",),
        ]
    ),
)


@dataclass(frozen=True)
class End:
    """How an attempt is to end, before the job is known."""

    outcome: str
    delay_s: int
    keep: tuple[int, int]
    started: bool
    lifo: bool


ENDS = st.builds(
    End,
    outcome=st.sampled_from(
        ["completed", "completed", "failed", "failed", "retried", "postponed", "handed_back",
         "waiting_children"]
    ),
    delay_s=st.sampled_from([0, 0, 5, 600]),
    keep=st.sampled_from([(-1, 0), (-1, 0), (-1, 0), (-1, 0), (0, 0), (1, 0), (2, 0), (-1, 3_600)]),
    started=st.booleans(),
    lifo=st.booleans(),
)  # fmt: skip


def asked_job(
    name: str, options: dict[str, Any], parent: Link | None = None
) -> tuple[NewJob, Any, dict[str, Any]]:
    """A job as the model takes it, and the data and options by which a user asks for it."""
    given = {key: value for key, value in options.items() if value not in ("", None)}
    delay_ms = given.pop("delay_s", 0) * 1_000
    dedup: Dedup | None = given.get("dedup")
    stored_options = {
        "delay": delay_ms or None,
        "priority": given.get("priority") or None,
        "lifo": given.get("lifo") or None,
        "jobId": given.get("job_id"),
        "de": dedup and stored_dedup(dedup),
        **(parent.options if parent else {}),
    }
    new = NewJob(
        name=name,
        data='{"n":1}',
        options={
            "attempts": given.get("attempts", 0),
            "tb": 1,
            **{key: value for key, value in stored_options.items() if value is not None},
        },
        id=given.get("job_id", ""),
        delay_ms=delay_ms,
        priority=given.get("priority", 0),
        lifo=given.get("lifo", False),
        parent=parent,
        dedup=dedup and Deduplication(
            key=dedup.key, ttl_ms=dedup.ttl_ms, extend=dedup.extend, replace=dedup.replace,
            keep_last=dedup.keep_last, reschedule=dedup.reschedule,
        ),
    )  # fmt: skip
    return new, {"n": 1}, {**given, "delay": delay_ms / 1_000}


def stored_dedup(dedup: Dedup) -> dict[str, Any]:
    flags = {
        "extend": dedup.extend,
        "replace": dedup.replace,
        "keepLastIfActive": dedup.keep_last,
        "reschedule": dedup.reschedule,
    }
    ttl = {"ttl": dedup.ttl_ms} if dedup.ttl_ms else {}
    return {"id": dedup.key, **ttl, **{name: True for name, is_set in flags.items() if is_set}}


def flow_node(node: Node) -> FlowNode:
    return FlowNode(
        queue=node.queue, name="mail", data={"n": 1}, on_failure=node.flag,
        options={"job_id": node.id, "priority": node.priority, "delay": node.delay_s},
        children=[flow_node(child) for child in node.children],
    )  # fmt: skip


def ending_of(job: TakenJob, end: End) -> Ending:
    outcome = "failed" if job.deferred_failure is not None else end.outcome
    delay_ms = end.delay_s * 1_000
    if outcome == "handed_back" and delay_ms:
        delay_ms = HOUR_MS  # a rate limit: long enough to end by the model's clock
    return Ending(
        outcome=outcome,
        text="7" if outcome == "completed" else "broke" if outcome in ("failed", "retried") else "",
        traces='["trace"]' if outcome in ("failed", "retried") and end.lifo else "",
        delay_ms=delay_ms,
        keep_count=end.keep[0],
        keep_age_s=end.keep[1],
        attempts=job.options.attempts,
        reason="attempts" if outcome == "failed" else "",
        lifo=end.lifo,
        started=end.started,
        wait_ms=job.wait_ms,
        run_ms=12 if end.started else 0,
    )


def wire_of(job: TakenJob, how: Ending) -> EndedAttempt:
    return ended(
        job, how.outcome, text=how.text, stacktrace=how.traces, delay_ms=how.delay_ms,
        keep_count=how.keep_count, keep_age_s=how.keep_age_s, attempts=how.attempts,
        lifo=how.lifo, started=how.started, wait_ms=how.wait_ms or 0, run_ms=how.run_ms,
        wait_bucket=-1 if how.wait_ms is None else bucket_of(how.wait_ms),
        run_bucket=bucket_of(how.run_ms),
    )  # fmt: skip


def seen_by_worker(job: TakenJob) -> tuple[Any, ...]:
    return (
        job.id.decode(), job.data.decode(), job.attempts_made, job.attempts_started, job.stalls,
        job.deferred_failure, job.wait_ms, job.schedule_id,
    )  # fmt: skip


def stored(job: Job, before: dict[str, Any]) -> tuple[Any, ...]:
    return (
        job.id, before["data"], int(before.get("atm", 0)), int(before.get("ats", 0)) + 1,
        int(before.get("stc", 0)), before.get("defa"), before["wait_ms"], job.schedule,
    )  # fmt: skip
