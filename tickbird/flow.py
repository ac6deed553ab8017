"""Flows: trees of jobs added at once. A parent runs when its children are done."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from redis.exceptions import RedisError

from tickbird.errors import InvalidOption
from tickbird.handle import JobHandle
from tickbird.job import QueueRef
from tickbird.options import parse_options, require_queue_name
from tickbird.storage.connection import Connection, unavailable
from tickbird.storage.keys import QueueKeys, hash_tag
from tickbird.storage.wire import NewJobMessage, encode_data, encode_name, new_job, packed, text

OnFailure = Literal["fail_parent", "continue_parent", "ignore", "remove"]
"""What a child's final failure makes of its parent:

fail_parent       the parent fails, without running
continue_parent   the parent runs at once, and can read what failed
ignore            counts as done, the failure kept for the parent to read
remove            counts as done, nothing kept
(none)            the parent waits, until the child is replayed or removed
"""

MAX_NODES = 1_000
MAX_CHILDREN = 1_000
_FLAGS: Mapping[OnFailure, str] = {
    "fail_parent": "fpof",
    "continue_parent": "cpof",
    "ignore": "idof",
    "remove": "rdof",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowNode:
    """One job of a flow and the jobs it waits for. `options` are JobOptions by name, without dedup."""

    queue: str
    name: str
    data: Any = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    children: Sequence[FlowNode] = ()
    on_failure: OnFailure | None = None

    def __post_init__(self) -> None:
        require_queue_name(self.queue)
        require_on_failure(self.on_failure)


@dataclass(frozen=True, slots=True)
class FlowHandle:
    """A node's job, and its children's in the order they were given."""

    job: JobHandle[Any]
    children: tuple[FlowHandle, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Which job a new job is a child of."""

    queue: QueueRef
    job_id: str
    on_failure: OnFailure | None = None


@dataclass(slots=True)
class PlannedNode:
    """A node with its id, ready to be sent; parents come before their children."""

    queue: QueueRef
    message: NewJobMessage
    children: list[PlannedNode]

    def walk(self) -> Iterator[PlannedNode]:
        """This node, then everything below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """A parent's children by what has become of them; keys are `<prefix>:<queue>:<id>`.

    At most 1,000 of each kind are read; `is_whole` says whether that was all.
    """

    pending: tuple[str, ...]
    completed: Mapping[str, str]
    """Their results, as JSON text."""
    ignored: Mapping[str, str]
    """Failures that did not fail the parent, with their reasons."""
    failed: tuple[str, ...]
    """Failures that fail the parent."""
    is_whole: bool


async def read_children(connection: Connection, queue: QueueRef, job_id: str) -> Children:
    """The children of a job, bounded."""
    key = QueueKeys(queue).job(job_id)
    reader = connection.reader
    pipe = reader.pipeline(transaction=False)
    pipe.sscan(f"{key}:dependencies", 0, count=MAX_CHILDREN)
    pipe.hscan(f"{key}:processed", 0, count=MAX_CHILDREN)
    pipe.hscan(f"{key}:failed", 0, count=MAX_CHILDREN)
    pipe.zrange(f"{key}:unsuccessful", 0, MAX_CHILDREN)
    try:
        (more_1, pending), (more_2, completed), (more_3, ignored), failed = await pipe.execute()
    except (RedisError, OSError) as error:
        raise unavailable(connection.url, error) from error
    is_whole = not (more_1 or more_2 or more_3 or len(failed) > MAX_CHILDREN)
    return Children(
        pending=tuple(sorted(text(child) for child in pending)),
        completed={text(child): text(result) for child, result in completed.items()},
        ignored={text(child): text(reason) for child, reason in ignored.items()},
        failed=tuple(text(child) for child in failed[:MAX_CHILDREN]),
        is_whole=is_whole,
    )


def plan_flow(root: FlowNode, prefix: str, max_data_bytes: int) -> PlannedNode:
    """Check a whole flow and give every node its id; nothing is sent.

    Raises InvalidOption for more than 1,000 nodes, dedup inside a flow, or queues whose keys a
    cluster could not hold together.
    """
    planned = _plan(root, prefix, None, max_data_bytes, [0])
    tags = {hash_tag(QueueKeys(node.queue).prefix) for node in planned.walk()}
    if len(tags) > 1:
        raise InvalidOption(
            f"a flow's queues must share one hash tag, not {sorted(map(str, tags))}"
        )
    return planned


def _plan(
    node: FlowNode, prefix: str, parent: Parent | None, max_data_bytes: int, count: list[int]
) -> PlannedNode:
    count[0] += 1
    if count[0] > MAX_NODES:
        raise InvalidOption(f"a flow may have at most {MAX_NODES:,} jobs")
    queue = QueueRef(node.queue, prefix)
    options = parse_options({"job_id": secrets.token_hex(16), **node.options})
    if options.dedup is not None:
        raise InvalidOption("dedup cannot be used inside a flow")
    relations: dict[str, Any] = {} if parent is None else child_fields(parent)
    message = new_job(
        options,
        encode_name(node.name),
        encode_data(node.data, max_data_bytes),
        prefix=QueueKeys(queue).prefix,
        has_children=bool(node.children),
        **relations,
    )
    planned = PlannedNode(queue, message, [])
    for child in node.children:
        of_child = Parent(queue=queue, job_id=message.id, on_failure=child.on_failure)
        planned.children.append(_plan(child, prefix, of_child, max_data_bytes, count))
    return planned


def child_fields(parent: Parent) -> dict[str, Any]:
    """What makes a new job a child: its hash's fields, and what its options repeat."""
    require_on_failure(parent.on_failure)
    if ":" in parent.job_id:
        # A relation is the parent's key, whose id is what follows the last colon.
        raise InvalidOption(
            f"a schedule's job cannot have children, and {parent.job_id!r} is one: let it add a "
            "job that has them"
        )
    keys = QueueKeys(parent.queue)
    flag = {} if parent.on_failure is None else {_FLAGS[parent.on_failure]: True}
    qualified = f"{parent.queue.prefix}:{parent.queue.name}"
    return {
        "parent_key": keys.job(parent.job_id),
        "parent": packed(msgspec.json.encode({"id": parent.job_id, "queueKey": qualified, **flag})),
        "stored": {"parent": {"id": parent.job_id, "queue": qualified}, **flag},
    }


def require_on_failure(on_failure: str | None) -> None:
    """Refuse a word that is none of OnFailure."""
    if on_failure is not None and on_failure not in _FLAGS:
        raise InvalidOption(f"on_failure must be one of {', '.join(_FLAGS)}, not {on_failure!r}")
