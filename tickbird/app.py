"""An application: its tasks, its queues, one Redis."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from tickbird.errors import InvalidOption
from tickbird.handle import JobHandle
from tickbird.inspector import Inspector
from tickbird.options import JobOptions, Keep, require_prefix, require_queue_name
from tickbird.queue import Queue
from tickbird.retry import Retry
from tickbird.storage.connection import Connection
from tickbird.storage.wire import encode_name
from tickbird.task import Task, as_retry

P = ParamSpec("P")
R = TypeVar("R")


class Decorator(Protocol):
    """Turns a function, async or not, into a Task of the same parameters and result."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class App:
    """Holds tasks and the connections they are added over.

    `redis` is a URL; without it TICKBIRD_REDIS_URL counts, then redis://localhost:6379/0.
    `prefix` begins the keys of all its queues. `keep_completed` and `keep_failed` say how long
    its workers keep finished jobs that were added by Tickbird and carry no rule of their own.
    """

    def __init__(
        self,
        name: str = "app",
        *,
        redis: str | None = None,
        prefix: str = "bull",
        keep_completed: Keep = Keep(age="1d", count=1_000),  # noqa: B008 - frozen
        keep_failed: Keep = Keep(age="14d", count=1_000_000),  # noqa: B008 - frozen
    ) -> None:
        require_prefix(prefix)
        self.name = name
        self.prefix = prefix
        self.keep_completed = keep_completed
        self.keep_failed = keep_failed
        self.tasks: dict[str, Task[Any, Any]] = {}
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
    ) -> Decorator:
        """Register a function under `name` (its own name by default) on a queue.

        Async functions run on the worker's event loop, others in its threads. `retry` is how
        often a job is tried and with what delays; a number is that many attempts.
        """
        require_queue_name(queue)
        policy = as_retry(retry)
        options = JobOptions(
            priority=priority, keep_completed=keep_completed, keep_failed=keep_failed
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
            )
            self.tasks[task_name] = task
            return task

        return register

    def queue(self, name: str) -> Queue:
        """The queue of that name, on the app's connections."""
        if name not in self._queues:
            self._queues[name] = Queue(name, redis=self.connection, prefix=self.prefix)
        return self._queues[name]

    async def aclose(self) -> None:
        """Close the app's connections."""
        self._queues.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _send(
        self, queue: str, name: str, data: Any, options: Mapping[str, Any]
    ) -> JobHandle[Any]:
        return await self.queue(queue).add(name, data, **options)
