from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from dashboard.exporter import DURATION_BUCKETS_MS, WAIT_BUCKETS_MS, render
from tests.queue_figures import figures, snapshot, worker
from tickbird.stats import QueueStats, TaskStats

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()


def exported() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of every metric, under the name that Prometheus stores."""
    stats = QueueStats(tasks={"send": TaskStats(added=1)})
    shown = snapshot(figures(stats=stats, workers=[worker()]))
    body, _ = render(replace(shown, actions={("replay", "done"): 1}), None)
    metrics = {}
    for family in text_string_to_metric_families(body.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        metrics[name] = (family.type, frozenset(labels))
    return metrics


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """The same, from the headings and the line under each."""
    found = re.findall(r"^### `(\w+)`\n(\w+) · ([^·\n]+) · [^·\n]+$", DOCS, flags=re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in found}


def test_every_metric_has_its_heading_type_and_labels() -> None:
    assert documented() == exported()


def test_every_heading_says_type_labels_and_unit() -> None:
    assert len(re.findall(r"^### ", DOCS, flags=re.MULTILINE)) == len(documented())


def test_the_buckets_are_those_of_the_page() -> None:
    for bounds_ms in (WAIT_BUCKETS_MS, DURATION_BUCKETS_MS):
        assert f"Buckets: {' '.join(f'{ms / 1_000:g}' for ms in bounds_ms)}." in DOCS
