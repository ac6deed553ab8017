from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Fleet:
    """Worker processes of the test, and the ledger they write."""

    url: str
    prefix: str
    ledger: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *options: str, url: str | None = None) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tickbird.cli", "worker", "tests.faults.jobs:app", "-q", "work",
             "--lock-ms", "1500", "--stalled-interval-ms", "300", "--log-level", "ERROR",
             "--redis-url", url or self.url, *options],
            cwd=ROOT,
            env={**os.environ, "FAULTS_PREFIX": self.prefix, "FAULTS_LEDGER": str(self.ledger)},
        )  # fmt: skip
        self.processes.append(process)
        return process

    def lines(self, what: str) -> Counter[str]:
        """How often each key was noted."""
        if not self.ledger.exists():
            return Counter()
        rows = [line.split() for line in self.ledger.read_text().splitlines()]
        return Counter(row[1] for row in rows if row[0] == what)

    def pids(self) -> set[int]:
        return {int(line.split()[2]) for line in self.ledger.read_text().splitlines()}


@pytest.fixture
def fleet(redis_url: str, prefix: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(redis_url, prefix, tmp_path / "ledger")
    yield fleet
    for process in fleet.processes:
        process.kill()
        process.wait()
