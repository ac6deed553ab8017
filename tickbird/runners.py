"""Where handlers run: on the event loop, in threads, in child processes; and how each is stopped."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from tickbird.processes import ProcessPool
from tickbird.task import Task


class Run(Protocol):
    """One call of a handler."""

    async def result(self) -> Any:
        """Run it and give what it returns."""

    def interrupt(self, error: BaseException) -> None:
        """Stop it as far as it can be stopped; safe to call when it has ended."""


class Runners:
    """The threads and processes of one worker. `processes` are started when first needed."""

    def __init__(self, threads: int, processes: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tickbird-job")
        self._processes = ProcessPool(processes)

    def prepare(self, task: Task[Any, Any], args: tuple[Any, ...], data: bytes) -> Run:
        """A call of `task` with its leading arguments and the stored data; nothing runs yet."""
        if task.executor == "process":
            task.signature.arguments(data)  # refused here rather than in the child
            return self._processes.prepare(task.function, data)
        arguments = task.signature.arguments(data)
        if task.executor == "async":
            return LoopRun(task.function, args, arguments)
        return ThreadRun(self._threads, task.function, args, arguments)

    def close(self) -> None:
        """Take no more calls and end the processes; threads that run go on, none waits for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._processes.close()


class LoopRun:
    """An async handler on the worker's event loop. Stopped by cancellation."""

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], arguments: Mapping[str, Any]
    ) -> None:
        self._function = function
        self._args = args
        self._arguments = arguments
        self._task: asyncio.Task[Any] | None = None

    async def result(self) -> Any:
        """Run it."""
        self._task = asyncio.current_task()
        return await self._function(*self._args, **self._arguments)

    def interrupt(self, error: BaseException) -> None:
        """Cancel it."""
        if self._task is not None:
            self._task.cancel(str(error))


class ThreadRun:
    """A sync handler in a thread. Stopped by raising in it, at its next line of Python."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        arguments: Mapping[str, Any],
    ) -> None:
        self._threads = threads
        self._function = function
        self._args = args
        self._arguments = arguments
        self._guard = threading.Lock()
        self._thread_id: int | None = None
        self._stopped_by: BaseException | None = None

    async def result(self) -> Any:
        """Run it in the next free thread."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, context.run, self._call)

    def interrupt(self, error: BaseException) -> None:
        """Raise an error of this kind in the thread, if the handler is running."""
        with self._guard:
            self._stopped_by = error
            if self._thread_id is not None:
                _raise_in(self._thread_id, type(error))

    def _call(self) -> Any:
        with self._guard:
            if self._stopped_by is not None:
                raise self._stopped_by
            self._thread_id = threading.get_ident()
        try:
            return self._function(*self._args, **self._arguments)
        finally:
            with self._guard:
                thread_id, self._thread_id = self._thread_id, None
                if self._stopped_by is not None and thread_id is not None:
                    _raise_in(thread_id, None)  # what came too late must not hit the next job


def _raise_in(thread_id: int, error: type[BaseException] | None) -> None:
    """Have the interpreter raise an error in a thread at its next bytecode; None takes it back."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread_id), None if error is None else ctypes.py_object(error)
    )
