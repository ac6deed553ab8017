"""Tickbird: a job queue on BullMQ's Redis layout, with the cockpit built in."""

from tickbird.app import App
from tickbird.errors import (
    DataTooLarge,
    DoNotRetry,
    InvalidOption,
    InvalidUrl,
    JobNotFound,
    LockLost,
    OutcomeUnknown,
    QueueFull,
    RedisUnavailable,
    RetryLater,
    TickbirdError,
    UndecodableData,
    UnknownTask,
    UnsupportedServer,
)
from tickbird.events import Event, EventReader
from tickbird.flow import FlowHandle, FlowNode, Parent
from tickbird.handle import JobHandle
from tickbird.inspector import Inspector, QueueSample, RunningJob, ServerInfo, WorkerInfo
from tickbird.job import Job, JobState, JobSummary, Outcome, QueueRef
from tickbird.options import Dedup, JobOptions, Keep
from tickbird.queue import Queue
from tickbird.retry import Backoff, Retry
from tickbird.task import Task
from tickbird.version import VERSION as __version__  # noqa: N811 - the name Python asks for
from tickbird.worker import Worker

__all__ = [
    "App", "Backoff", "DataTooLarge", "Dedup", "DoNotRetry", "Event", "EventReader", "FlowHandle",
    "FlowNode", "Inspector", "InvalidOption", "InvalidUrl", "Job", "JobHandle", "JobNotFound",
    "JobOptions", "JobState", "JobSummary", "Keep", "LockLost", "Outcome", "OutcomeUnknown",
    "Parent", "Queue", "QueueFull", "QueueRef", "QueueSample", "RedisUnavailable", "Retry",
    "RetryLater", "RunningJob", "ServerInfo", "Task", "TickbirdError", "UndecodableData",
    "UnknownTask", "UnsupportedServer", "Worker", "WorkerInfo", "__version__",
]  # fmt: skip
