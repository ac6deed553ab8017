"""Tickbird: a job queue on BullMQ's Redis layout, with the cockpit built in."""

from tickbird.app import App
from tickbird.context import Context
from tickbird.errors import (
    DataTooLarge,
    DoNotRetry,
    InvalidOption,
    InvalidUrl,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobTimeout,
    LockLost,
    OutcomeUnknown,
    Postpone,
    PutBack,
    QueueFull,
    QueueInUse,
    RateLimited,
    RedisUnavailable,
    RetryLater,
    TickbirdError,
    UndecodableData,
    UnknownTask,
    UnsupportedServer,
    WaitForChildren,
)
from tickbird.events import Event, EventReader
from tickbird.flow import FlowHandle, FlowNode, Parent
from tickbird.handle import JobHandle
from tickbird.inspector import (
    ForeignWorker,
    Inspector,
    LogPage,
    MinuteCounts,
    QueueSample,
    QueueWorkers,
    RunningJob,
    ServerInfo,
    WorkerInfo,
)
from tickbird.job import Job, JobState, JobSummary, Outcome, QueueRef
from tickbird.limits import RateLimit
from tickbird.operations import Removal
from tickbird.options import KEEP_COMPLETED, KEEP_FAILED, Dedup, JobOptions, Keep
from tickbird.queue import Queue
from tickbird.retry import Backoff, Retry
from tickbird.schedule import Cron, Every, Schedule, Schedules
from tickbird.task import Task
from tickbird.upkeep import Orphans
from tickbird.version import VERSION as __version__  # noqa: N811 - the name Python asks for
from tickbird.worker import Worker

__all__ = [
    "KEEP_COMPLETED",
    "KEEP_FAILED",
    "App",
    "Backoff",
    "Context",
    "Cron",
    "DataTooLarge",
    "Dedup",
    "DoNotRetry",
    "Event",
    "EventReader",
    "Every",
    "FlowHandle",
    "FlowNode",
    "ForeignWorker",
    "Inspector",
    "InvalidOption",
    "InvalidUrl",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "JobOptions",
    "JobState",
    "JobSummary",
    "JobTimeout",
    "Keep",
    "LockLost",
    "LogPage",
    "MinuteCounts",
    "Orphans",
    "Outcome",
    "OutcomeUnknown",
    "Parent",
    "Postpone",
    "PutBack",
    "Queue",
    "QueueFull",
    "QueueInUse",
    "QueueRef",
    "QueueSample",
    "QueueWorkers",
    "RateLimit",
    "RateLimited",
    "RedisUnavailable",
    "Removal",
    "Retry",
    "RetryLater",
    "RunningJob",
    "Schedule",
    "Schedules",
    "ServerInfo",
    "Task",
    "TickbirdError",
    "UndecodableData",
    "UnknownTask",
    "UnsupportedServer",
    "WaitForChildren",
    "Worker",
    "WorkerInfo",
    "__version__",
]  # fmt: skip
