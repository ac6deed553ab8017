"""An application: its tasks, its queues, one Redis."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints, overload

from tickbird.context import Context
from tickbird.durations import Duration
from tickbird.errors import InvalidOption
from tickbird.handle import JobHandle
from tickbird.inspector import Inspector
from tickbird.options import (
    KEEP_COMPLETED,
    KEEP_FAILED,
    JobOptions,
    Keep,
    require_prefix,
    require_queue_name,
)
from tickbird.queue import Queue
from tickbird.retry import Retry
from tickbird.schedule import Cron, Every
from tickbird.storage.connection import Connection
from tickbird.storage.wire import encode_name
from tickbird.task import Executor, Task, as_retry

P = ParamSpec("P")
R = TypeVar("R")


class Decorator(Protocol):
    """Turns a function, async or not, into a Task of the same parameters and result."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class App:
    """Holds tasks and the connections they are added over.

    `redis` is a URL; without it TICKBIRD_REDIS_URL counts, then redis://localhost:6379/0.
    `prefix` begins the keys of all its queues. `keep_completed` and `keep_failed` say how long
    its workers keep finished jobs that were added by Tickbird and carry no rule of their own; a
    rule trims everybody's jobs, so the defaults (completed: a day, 1,000; failed: 14 days, a
    million) are left aside on queues that BullMQ's own clients use.
    """

    def __init__(
        self,
        name: str = "app",
        *,
        redis: str | None = None,
        prefix: str = "bull",
        keep_completed: Keep = KEEP_COMPLETED,
        keep_failed: Keep = KEEP_FAILED,
    ) -> None:
        require_prefix(prefix)
        self.name = name
        self.prefix = prefix
        self.keep_completed = keep_completed
        self.keep_failed = keep_failed
        self.tasks: dict[str, Task[Any, Any]] = {}
        self.scheduled: dict[str, Every | Cron] = {}
        self._given_url = redis
        self._connection: Connection | None = None
        self._queues: dict[str, Queue] = {}

    def __repr__(self) -> str:
        return f"App({self.name!r}, tasks={sorted(self.tasks)})"

    @property
    def connection(self) -> Connection:
        """The app's connections; nothing is opened before the first call."""
        if self._connection is None:
            self._connection = Connection(self._given_url)
        return self._connection

    @property
    def inspector(self) -> Inspector:
        """A read-only view of the app's Redis."""
        return Inspector(self.connection)

    def connect_to(self, url: str) -> None:
        """Use another Redis than the one given at construction (a worker's --redis-url).

        Only before the first use of the app's connections.
        """
        if self._connection is not None:
            raise InvalidOption("the app has connected already; give the URL before its first use")
        self._given_url = url

    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        retry: Retry | int = Retry(),  # noqa: B008 - frozen
        priority: int = 0,
        keep_completed: Keep | int | bool | None = None,
        keep_failed: Keep | int | bool | None = None,
        timeout: Duration | None = None,
        executor: Executor | None = None,
        schedule: Every | Cron | None = None,
    ) -> Decorator:
        """Register a function under `name` (its own name by default) on a queue.

        Async functions run on the worker's event loop, others in its threads, or with
        `executor="process"` in child processes. A first parameter annotated with Context is given
        one. `retry` is how often a job is tried and with what delays; a number is that many
        attempts. `timeout` bounds one attempt: an async function is cancelled, a thread gets a
        JobTimeout raised in it at its next line of Python, a process is killed. `schedule` adds
        the task, without arguments, again and again; workers see to it when they start.
        """
        require_queue_name(queue)
        policy = as_retry(retry)
        options = JobOptions(
            priority=priority,
            keep_completed=keep_completed,
            keep_failed=keep_failed,
            timeout=timeout,
        )

        def register(function: Callable[..., Any]) -> Task[Any, Any]:
            task_name = name or function.__name__
            encode_name(task_name)
            if task_name in self.tasks:
                raise InvalidOption(f"app {self.name!r} has a task {task_name!r} already")
            task: Task[Any, Any] = Task(
                function,
                name=task_name,
                queue=queue,
                retry=policy,
                options=options,
                send=self._send,
                executor=executor,
                wants_context=_wants_context(function),
            )
            self.tasks[task_name] = task
            if schedule is not None:
                task.signature.bind((), {})  # a task with required arguments cannot be scheduled
                self.scheduled[task_name] = schedule
            return task

        return register

    def queue(self, name: str) -> Queue:
        """The queue of that name, on the app's connections."""
        if name not in self._queues:
            self._queues[name] = Queue(name, redis=self.connection, prefix=self.prefix)
        return self._queues[name]

    async def upsert_schedules(self) -> None:
        """Bring the schedules of the app's tasks to what the code says; unchanged ones are left.

        Workers call it when they start. A schedule's id is its task's name.
        """
        for name, when in self.scheduled.items():
            task = self.tasks[name]
            schedules = self.queue(task.queue).schedules
            found = await schedules.get(name)
            options = task.schedule_options()
            if found is None or not found.is_defined_by(name, when, options):
                await schedules.upsert(name, name, when=when, **options)

    async def aclose(self) -> None:
        """Close the app's queues and connections."""
        queues, self._queues = self._queues, {}
        for queue in queues.values():
            await queue.aclose()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _send(
        self, queue: str, name: str, data: Any, options: Mapping[str, Any]
    ) -> JobHandle[Any]:
        return await self.queue(queue).add(name, data, **options)


def _wants_context(function: Callable[..., Any]) -> bool:
    """Whether the first parameter is annotated with Context."""
    parameters = list(inspect.signature(function).parameters)
    if not parameters:
        return False
    try:
        return get_type_hints(function).get(parameters[0]) is Context
    except (NameError, TypeError):
        # Something else is annotated with a name only a type checker can see.
        return function.__annotations__.get(parameters[0]) in ("Context", Context)
