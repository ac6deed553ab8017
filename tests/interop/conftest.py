"""Node, the clients of BullMQ in it, and our workers beside them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from tests.conftest import missing, require_or_skip
from tests.interop.bullmq import NodeProcess, NodeQueue
from tests.interop.tasks import register
from tickbird import App

_NODE = Path(__file__).parent / "node"
_INSTALL_WITHIN_S = 180


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder with the installed clients, outside the tree: searches here must not find them."""
    require_or_skip("node", "apt-get install nodejs npm")
    npm = require_or_skip("npm", "apt-get install npm")
    folder = Path(
        os.environ.get("TICKBIRD_NPM_CACHE") or Path(tempfile.gettempdir()) / "tickbird-npm"
    )
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_NODE / "package.json", folder)
    if not _is_installed(folder):
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", folder],
            capture_output=True, text=True, timeout=_INSTALL_WITHIN_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            missing(f"npm cannot install BullMQ's clients into {folder}:\n{done.stderr[-1000:]}")
    return folder


def _is_installed(folder: Path) -> bool:
    wanted = json.loads((_NODE / "package.json").read_text())["dependencies"]
    return all(_version(folder, name) == spec.rpartition("@")[2] for name, spec in wanted.items())


def _version(folder: Path, name: str) -> str:
    package = folder / "node_modules" / name / "package.json"
    return str(json.loads(package.read_text())["version"]) if package.exists() else ""


@pytest.fixture(scope="session")
def node_processes(node_modules: Path, redis_url: str) -> Iterator[dict[str, NodeProcess]]:
    """One process per release for the whole run."""
    processes = {p: NodeProcess(p, node_modules, redis_url) for p in ("bullmq", "bullmq5")}
    yield processes
    for process in processes.values():
        process.stop()


@pytest.fixture(params=["bullmq", "bullmq5"], ids=["v6", "v5"])
async def node(
    request: pytest.FixtureRequest,
    node_processes: dict[str, NodeProcess],
    prefix: str,
    queue_name: str,
) -> AsyncIterator[NodeQueue]:
    """The test's queue in Node, once per release."""
    node = NodeQueue(node_processes[request.param], prefix, queue_name)
    yield node
    await node.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    """A plain client, to look at keys."""
    client = aioredis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
def app(app: App, redis: aioredis.Redis) -> App:
    """The test's app with the tasks both sides know."""
    register(app, redis)
    return app
