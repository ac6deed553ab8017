"""View models: exactly what templates see. Plain frozen data, no behaviour, no request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickbird.job import JobState


@dataclass(frozen=True, slots=True)
class Measure:
    """A number and its unit, apart, so that a tile can print them in two sizes."""

    value: str
    unit: str

    def __str__(self) -> str:
        return f"{self.value} {self.unit}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spark:
    """A sparkline: the path data of its lines and of the area below; what it says aloud."""

    line: str
    fill: str
    label: str
    trend: str = "flat"
    """`up` (bad), `down` (good), `flat`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a horizontal bar, in percent of its width."""

    state: str
    x: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar that shows how a whole is divided."""

    segments: tuple[Segment, ...]
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How fresh the figures are; every page says it in its header."""

    up: bool
    sentence: str
    """Why Redis does not answer; empty when it does."""
    age_ms: float
    now_ms: int
    """Server time of the figures: what "ago" counts from."""
    dead_letters: int
    alerts: int
    workers: int
    queues: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Worry:
    """One thing that needs somebody. `queue` is the label it begins with, "" if none."""

    severity: str
    queue: str
    sentence: str
    forecast: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number, its unit, one line of context, perhaps a small chart and a list behind it."""

    name: str
    measure: Measure
    context: str
    tone: str = ""
    exact: str = ""
    spark: Spark | None = None
    route: str = ""
    """Where the number leads: a route's name with `query` and the queue's label; "" nowhere."""
    queue: str = ""
    query: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """A queue as the overview lists it."""

    label: str
    event: str
    severity: str
    note: str
    note_tone: str
    paused: bool
    error: str
    depth: int
    bar: Bar
    spark: Spark
    oldest_ms: float | None
    is_measured: bool
    """False: only foreign workers serve it, whose attempts nobody counts for us."""
    added_per_min: float
    finished_per_min: float
    run_p50_ms: float | None
    run_p95_ms: float | None
    failure_rate: float | None
    failure_tone: str
    dead: int
    dead_per_min: float
    slots: str
    slots_tone: str
    empty_in: str
    empty_tone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the overview one can sort by."""

    key: str
    title: str
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Where a list is: links to the parts before and after."""

    first: int
    last: int
    total: int
    previous: int | None
    """Offset of the page before; None on the first page."""
    following: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The first page."""

    headline: str
    calm: str
    worries: tuple[Worry, ...]
    tiles: tuple[Tile, ...]
    rows: tuple[QueueRow, ...]
    pages: Pages
    known: int
    """How many queues there are, whatever the filter."""
    filter: str
    sort: str
    columns: dict[str, Column]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """A state's tab on the queue page."""

    state: JobState
    title: str
    count: int
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as lists show it."""

    id: str
    queue: str
    state: str
    name: str
    exists: bool
    at_ms: int | None
    """The time that matters in its list: due, started, finished or added."""
    took_ms: float | None
    data_start: str
    data_bytes: int
    attempts: int
    attempts_made: int
    priority: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePage:
    """One queue and one of its lists."""

    label: str
    event: str
    paused: bool
    error: str
    worries: tuple[Worry, ...]
    tiles: tuple[Tile, ...]
    tabs: tuple[Tab, ...]
    state: JobState
    time_title: str
    jobs: tuple[JobRow, ...]
    pages: Pages
    workers: tuple[WorkerRow, ...]
    foreign_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadQueue:
    """A queue's share of the dead letters."""

    label: str
    count: int
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetters:
    """Failed jobs of all queues or of one, newest first."""

    total: int
    queues: tuple[DeadQueue, ...]
    queue: str
    """The label filtered by; "" for all."""
    jobs: tuple[JobRow, ...]
    pages: Pages


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRow:
    """A job a worker has in hand."""

    id: str
    queue: str
    name: str
    started_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker process of ours."""

    id: str
    host: str
    pid: int
    version: str
    started_at_ms: int
    seen_at_ms: int
    queues: tuple[str, ...]
    busy: int
    concurrency: int
    bar: Bar
    stopping: bool
    running: tuple[RunningRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersPage:
    """Who works."""

    workers: tuple[WorkerRow, ...]
    busy: int
    concurrency: int
    foreign: tuple[tuple[str, int], ...]
    """Queues with workers of other clients, and how many."""
    unserved: tuple[str, ...]
    """Queues with waiting jobs that nobody serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A piece of a stack trace: `own` (the user's code), `lib`, or `text`."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One attempt of a job, as far as the layout remembers it."""

    title: str
    outcome: str
    sentence: str
    at_ms: int | None
    took_ms: float | None
    frames: tuple[Frame, ...]
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A JSON value as a tree. `text` is the source of a scalar, untouched.

    `kind`: object, array, string, number, word (true, false, null).
    """

    kind: str
    key: str | None = None
    text: str = ""
    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A stored value: as a tree if it is JSON we can show as one, else as the raw text."""

    title: str
    node: Node | None
    raw: str
    note: str
    """Why it is raw or cut; "" when the tree says everything."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """One job."""

    id: str
    queue: str
    event: str
    name: str
    state: JobState
    badge: str
    why: str
    why_tone: str
    can_replay: bool
    can_resume: bool
    attempts: tuple[AttemptRow, ...]
    attempts_note: str
    documents: tuple[Document, ...]
    facts: tuple[tuple[str, str, int | None], ...]
    """Name, text, and a time in epoch ms where the fact is one."""
    progress: str
    logs: tuple[str, ...]
    is_final: bool
    """It will not change by itself any more: no need to look again and again."""
