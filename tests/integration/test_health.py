from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request

import pytest

from tests.conftest import eventually, running
from tests.faults.proxy import lossy_proxy
from tickbird import App, InvalidOption, Worker


def get(port: int, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


async def ask(worker: Worker, path: str) -> tuple[int, dict[str, object]]:
    assert worker.health_port is not None
    return await asyncio.to_thread(get, worker.health_port, path)


async def test_a_worker_is_ready_once_it_has_looked_and_alive_always(app: App) -> None:
    async with running(Worker(app, queues=["mail"], health=("127.0.0.1", 0))) as worker:

        async def is_ready() -> bool:
            return worker.health_port is not None and (await ask(worker, "/readyz"))[0] == 200

        await eventually(is_ready)
        assert await ask(worker, "/healthz") == (200, {"status": "alive"})
        assert (await ask(worker, "/metrics"))[0] == 404


async def test_a_worker_without_redis_is_alive_and_not_ready(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickbird.health.READY_WITHIN_S", 1.5)
    async with lossy_proxy(redis_url, seed=1) as proxy:
        app = App("health", redis=proxy.url, prefix=prefix)
        async with running(Worker(app, queues=["mail"], health=("127.0.0.1", 0))) as worker:

            async def has(status: int) -> bool:
                return (
                    worker.health_port is not None and (await ask(worker, "/readyz"))[0] == status
                )

            await eventually(lambda: has(200))
            proxy.fall_silent()
            await eventually(lambda: has(503))
            assert await ask(worker, "/readyz") == (
                503,
                {"status": "no answer from Redis", "queues": [f"{prefix}:mail"]},
            )
            assert (await ask(worker, "/healthz"))[0] == 200
            proxy.speak()
            await eventually(lambda: has(200))
        await app.aclose()


async def test_a_worker_with_all_slots_in_use_is_ready(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickbird.health.READY_WITHIN_S", 0.2)
    release = asyncio.Event()

    @app.task(queue="mail")
    async def work() -> None:
        await release.wait()

    await work.delay()
    worker = Worker(app, queues=["mail"], concurrency=1, lock_ms=1_500, health=("127.0.0.1", 0))
    async with running(worker):
        (loop,) = await _loops(worker)

        async def is_stale() -> bool:
            return len(loop.running) == 1 and loop._clock.monotonic_s() - loop.looked_at_s > 0.5

        await eventually(is_stale)
        assert (await ask(worker, "/readyz"))[0] == 200
        release.set()


async def _loops(worker: Worker):  # noqa: ANN202
    async def started() -> object:
        return worker.loops

    await eventually(started)
    return worker.loops


async def test_a_port_in_use_is_one_sentence(app: App) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    with pytest.raises(InvalidOption, match=f"cannot serve health checks on 127.0.0.1:{port}"):
        await Worker(app, queues=["mail"], health=("127.0.0.1", port)).run(handle_signals=False)
    server.close()
