from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.alerts.rules import Alert, Severity
from dashboard.exporter import render
from tests.conftest import require_or_skip
from tests.queue_figures import MAIL, NOW_MS, figures, snapshot, worker
from tickbird import Outcome
from tickbird.stats import QueueStats, TaskStats

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"


@pytest.fixture
def promtool() -> str:
    return require_or_skip("promtool", "apt-get install prometheus")


@pytest.fixture
def page() -> bytes:
    """A page with every metric and every kind of sample."""
    stats = QueueStats(
        tasks={"send": TaskStats(added=1, attempts={Outcome.COMPLETED: 1})}, replayed={"failed": 1}
    )
    alert = Alert(
        rule="depth_rising",
        queue=MAIL,
        severity=Severity.CRITICAL,
        since_ms=NOW_MS,
        summary="mail has been rising",
    )
    shown = snapshot(figures(stats=stats, workers=[worker(busy=1)]), alerts=[alert])
    body, _ = render(replace(shown, actions={("replay", "done"): 1}), None)
    return body


def run(*command: str, stdin: bytes = b"") -> None:
    done = subprocess.run(
        command, input=stdin, cwd=MONITORING, capture_output=True, timeout=120, check=False
    )
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output


def test_the_configuration_is_valid(promtool: str) -> None:
    run(promtool, "check", "config", "prometheus.yml")


def test_the_rules_are_valid(promtool: str) -> None:
    run(promtool, "check", "rules", *(str(path) for path in MONITORING.glob("rules/*.yml")))


@pytest.mark.parametrize("path", sorted(MONITORING.glob("tests/*.yml")), ids=lambda p: p.stem)
def test_the_rules_fire_when_they_should_and_only_then(promtool: str, path: Path) -> None:
    run(promtool, "test", "rules", str(path))


def test_the_page_of_metrics_follows_the_conventions(promtool: str, page: bytes) -> None:
    run(promtool, "check", "metrics", stdin=page)


def test_the_rules_use_only_metrics_that_are_exported(page: bytes) -> None:
    exported = set(re.findall(r"^(tickbird_\w+)", page.decode(), flags=re.MULTILINE))
    rules = (MONITORING / "rules" / "tickbird.rules.yml").read_text()

    used = set(re.findall(r"(?<![\w:])tickbird_\w+", rules))

    assert used
    assert used <= exported
