from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from dashboard.alerts.rules import Alert, Severity
from dashboard.exporter import DURATION_BUCKETS_MS, WAIT_BUCKETS_MS, render
from tests.queue_figures import MAIL, NOW_MS, figures, snapshot, worker
from tickbird import JobState, Outcome, QueueRef
from tickbird.stats import BOUNDS_MS, Histogram, QueueStats, TaskStats, bucket_of

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from dashboard.observer.snapshot import Snapshot

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PLAIN = "text/plain; version=0.0.4"
# What Prometheus 2.42 sends.
PROMETHEUS = f"{OPENMETRICS.replace(' ', '')},{PLAIN.replace(' ', '')};q=0.5,*/*;q=0.1"


def histogram(*durations_ms: int) -> Histogram:
    counts = [0] * (len(BOUNDS_MS) + 1)
    for duration_ms in durations_ms:
        counts[bucket_of(duration_ms)] += 1
    return Histogram(tuple(counts), sum(durations_ms))


def families(shown: Snapshot, accept: str | None = None) -> dict[str, Metric]:
    body, content_type = render(shown, accept)
    parser = openmetrics_parser if "openmetrics" in content_type else text_parser
    return {family.name: family for family in parser.text_string_to_metric_families(body.decode())}


def value(shown: Snapshot, name: str, **labels: str) -> float:
    """The one sample of that name and these labels."""
    found = [
        sample.value
        for family in families(shown).values()
        for sample in family.samples
        if sample.name == f"tickbird_{name}" and sample.labels == labels
    ]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


@pytest.fixture
def busy() -> Snapshot:
    stats = QueueStats(
        tasks={
            "send": TaskStats(
                added=20,
                attempts={Outcome.COMPLETED: 10, Outcome.RETRIED: 3, Outcome.FAILED: 2},
                run={
                    Outcome.COMPLETED: histogram(4, 5, 6, 990, 4_000_000),
                    Outcome.FAILED: histogram(20, 20),
                },
                wait=histogram(1, 10, 11, 30_000_000),
                dead_lettered={"attempts": 1, "stalled": 1},
            ),
            "receipt": TaskStats(added=1, wait=histogram(50)),
        },
        stalled=4,
        replayed={"failed": 7},
    )
    return snapshot(
        figures(
            depths=[12],
            counts={JobState.WAITING: 10, JobState.PRIORITIZED: 2, JobState.FAILED: 2},
            oldest_ready_at_ms=NOW_MS - 2_500,
            paused=True,
            stats=stats,
            workers=[
                worker(id="a", busy=4, running=4),
                worker(id="b", queues=("mail", "media"), busy=6, running=1),
                worker(id="c", stopping=True, busy=0),
            ],
            foreign_workers=2,
        ),
        figures(
            queue=QueueRef("media"),
            workers=[worker(id="b", queues=("mail", "media"), busy=6, running=5)],
        ),
    )


@pytest.mark.parametrize("accept", [OPENMETRICS, PROMETHEUS, "application/openmetrics-text"])
def test_openmetrics_is_given_to_who_asks_for_it(busy: Snapshot, accept: str) -> None:
    body, content_type = render(busy, accept)

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "accept", [None, "", PLAIN, "*/*", "application/openmetrics-text; version=banana", ";;,=,"]
)
def test_everybody_else_gets_the_plain_text(busy: Snapshot, accept: str | None) -> None:
    body, content_type = render(busy, accept)

    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"# EOF" not in body


@pytest.mark.parametrize("accept", [OPENMETRICS, PLAIN])
def test_both_formats_say_the_same(busy: Snapshot, accept: str) -> None:
    shown = families(busy, accept)

    types = {name.removeprefix("tickbird_"): family.type for name, family in shown.items()}
    info = {"build": "info"} if accept == OPENMETRICS else {"build_info": "gauge"}
    assert types == info | {
        "up": "gauge",
        "leader": "gauge",
        "observer_sample_duration_seconds": "gauge",
        "observer_last_success_timestamp_seconds": "gauge",
        "dashboard_actions": "counter",
        "queue_jobs": "gauge",
        "queue_depth": "gauge",
        "queue_oldest_job_age_seconds": "gauge",
        "queue_paused": "gauge",
        "dlq_jobs": "gauge",
        "queue_workers": "gauge",
        "queue_slots": "gauge",
        "workers": "gauge",
        "alerts_firing": "gauge",
        "jobs_added": "counter",
        "job_attempts": "counter",
        "jobs_finished": "counter",
        "jobs_retried": "counter",
        "jobs_dead_lettered": "counter",
        "jobs_replayed": "counter",
        "jobs_stalled": "counter",
        "job_wait_seconds": "histogram",
        "job_duration_seconds": "histogram",
    }
    for family in shown.values():
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_a_queue_shows_what_it_holds(busy: Snapshot) -> None:
    assert value(busy, "queue_jobs", queue="mail", state="waiting") == 10
    assert value(busy, "queue_jobs", queue="mail", state="waiting_children") == 0
    assert value(busy, "queue_depth", queue="mail") == 12
    assert value(busy, "queue_oldest_job_age_seconds", queue="mail", state="waiting") == 2.5
    assert value(busy, "queue_oldest_job_age_seconds", queue="media", state="waiting") == 0
    assert value(busy, "queue_paused", queue="mail") == 1
    assert value(busy, "queue_paused", queue="media") == 0
    assert value(busy, "dlq_jobs", queue="mail") == 2


def test_workers_are_counted_once_and_slots_by_queue(busy: Snapshot) -> None:
    assert value(busy, "queue_workers", queue="mail") == 5
    assert value(busy, "queue_workers", queue="media") == 1
    assert value(busy, "queue_slots", queue="mail", state="busy") == 5
    assert value(busy, "queue_slots", queue="mail", state="free") == 10
    assert value(busy, "queue_slots", queue="media", state="busy") == 5
    assert value(busy, "workers", state="busy") == 2
    assert value(busy, "workers", state="idle") == 0
    assert value(busy, "workers", state="stopping") == 1


def test_jobs_are_counted_by_task_and_outcome(busy: Snapshot) -> None:
    assert value(busy, "jobs_added_total", queue="mail", task="send") == 20
    for outcome, count in {"completed": 10, "retried": 3, "failed": 2}.items():
        labels = {"queue": "mail", "task": "send", "outcome": outcome}
        assert value(busy, "job_attempts_total", **labels) == count
        if outcome != "retried":
            assert value(busy, "jobs_finished_total", **labels) == count
    assert value(busy, "jobs_retried_total", queue="mail", task="send") == 3
    assert value(busy, "jobs_replayed_total", queue="mail", source="failed") == 7
    assert value(busy, "jobs_stalled_total", queue="mail") == 4


def test_known_labels_start_at_zero(busy: Snapshot) -> None:
    labels = {"queue": "mail", "task": "receipt"}

    assert value(busy, "job_attempts_total", **labels, outcome="failed") == 0
    assert value(busy, "jobs_retried_total", **labels) == 0
    assert value(busy, "jobs_dead_lettered_total", **labels, reason="unrecoverable") == 0
    assert value(busy, "job_duration_seconds_count", **labels, outcome="completed") == 0
    assert value(busy, "jobs_replayed_total", queue="media", source="completed") == 0
    assert value(busy, "jobs_stalled_total", queue="media") == 0
    assert value(busy, "alerts_firing", rule="depth_rising", severity="critical") == 0
    assert value(busy, "alerts_firing", rule="failure_rate", severity="warning") == 0


def test_a_reason_that_came_later_is_shown_too() -> None:
    stats = QueueStats(tasks={"send": TaskStats(dead_lettered={"timeout": 2})})
    shown = snapshot(figures(stats=stats))

    labels = {"queue": "mail", "task": "send"}
    assert value(shown, "jobs_dead_lettered_total", **labels, reason="timeout") == 2
    assert value(shown, "jobs_dead_lettered_total", **labels, reason="attempts") == 0


def test_the_duration_histogram_has_the_published_buckets(busy: Snapshot) -> None:
    labels = {"queue": "mail", "task": "send", "outcome": "completed"}
    expected = {"0.005": 2, "0.01": 3, "0.5": 3, "1.0": 4, "3600.0": 4, "+Inf": 5}

    for le, count in expected.items():
        assert value(busy, "job_duration_seconds_bucket", **labels, le=le) == count
    assert value(busy, "job_duration_seconds_count", **labels) == 5
    assert value(busy, "job_duration_seconds_sum", **labels) == pytest.approx(4_001.005)


def test_the_wait_histogram_sums_the_tasks_of_a_queue(busy: Snapshot) -> None:
    expected = {"0.01": 2, "0.05": 4, "21600.0": 4, "+Inf": 5}

    for le, count in expected.items():
        assert value(busy, "job_wait_seconds_bucket", queue="mail", le=le) == count
    assert value(busy, "job_wait_seconds_sum", queue="mail") == pytest.approx(30_000.072)


@pytest.mark.parametrize("accept", [OPENMETRICS, PLAIN])
def test_buckets_only_grow_and_end_with_the_count(busy: Snapshot, accept: str) -> None:
    for name, bounds_ms in {
        "tickbird_job_wait_seconds": WAIT_BUCKETS_MS,
        "tickbird_job_duration_seconds": DURATION_BUCKETS_MS,
    }.items():
        by_labels: dict[frozenset[tuple[str, str]], dict[str, list[float]]] = {}
        for sample in families(busy, accept)[name].samples:
            labels = frozenset((k, v) for k, v in sample.labels.items() if k != "le")
            of_labels = by_labels.setdefault(labels, {"le": [], "buckets": [], "count": []})
            if sample.name.endswith("_bucket"):
                of_labels["le"].append(float(sample.labels["le"]))
                of_labels["buckets"].append(sample.value)
            elif sample.name.endswith("_count"):
                of_labels["count"].append(sample.value)
        assert by_labels
        for found in by_labels.values():
            assert found["le"] == [*(bound / 1_000 for bound in bounds_ms), math.inf]
            assert found["buckets"] == sorted(found["buckets"])
            assert found["count"] == found["buckets"][-1:]


def test_without_redis_only_the_process_speaks(busy: Snapshot) -> None:
    down = snapshot(*busy.queues, up=False, alerts=busy.alerts)

    assert value(down, "up") == 0
    assert value(down, "observer_last_success_timestamp_seconds") == NOW_MS / 1_000
    assert set(families(down)) == {
        "tickbird_up",
        "tickbird_leader",
        "tickbird_build_info",
        "tickbird_observer_sample_duration_seconds",
        "tickbird_observer_last_success_timestamp_seconds",
        "tickbird_dashboard_actions",
    }


def test_the_observer_tells_how_fresh_its_figures_are(busy: Snapshot) -> None:
    assert value(busy, "up") == 1
    assert value(busy, "leader") == 1
    assert value(busy, "observer_sample_duration_seconds") == 0.0125


def test_a_queue_that_cannot_be_read_is_left_out_and_spoils_no_other(busy: Snapshot) -> None:
    corrupt = figures(queue=QueueRef("corrupt"), error="WRONGTYPE")
    shown = snapshot(*busy.queues, corrupt)

    body, _ = render(shown, None)

    assert b"corrupt" not in body
    assert value(shown, "queue_depth", queue="mail") == 12


def test_no_queue_at_all_is_a_valid_page() -> None:
    for accept in (OPENMETRICS, PLAIN):
        assert families(snapshot(), accept)["tickbird_up"].samples[0].value == 1


def test_firing_alerts_are_counted_by_rule_and_severity() -> None:
    def alert(rule: str, severity: Severity, queue: str) -> Alert:
        return Alert(
            rule=rule, queue=QueueRef(queue), severity=severity, since_ms=NOW_MS, summary=""
        )

    shown = snapshot(
        alerts=[
            alert("depth_rising", Severity.CRITICAL, "a"),
            alert("depth_rising", Severity.CRITICAL, "b"),
            alert("failure_rate", Severity.WARNING, "a"),
        ]
    )

    assert value(shown, "alerts_firing", rule="depth_rising", severity="critical") == 2
    assert value(shown, "alerts_firing", rule="depth_rising", severity="warning") == 0
    assert value(shown, "alerts_firing", rule="failure_rate", severity="warning") == 1


def test_actions_are_counted_by_result(busy: Snapshot) -> None:
    acted = replace(busy, actions={("replay", "ok"): 3, ("pause", "refused"): 1})

    shown = families(acted)

    assert {
        (s.labels["action"], s.labels["result"]): s.value
        for s in shown["tickbird_dashboard_actions"].samples
    } == {("replay", "ok"): 3, ("pause", "refused"): 1}


@pytest.mark.parametrize("accept", [OPENMETRICS, PLAIN])
@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ('say "hi"', 'say "hi"'),
        ("two\nlines", "two\nlines"),
        ("carriage\rreturn\x00\u2028", "carriage\rreturn\x00\u2028"),
        ("back\\slash\\n", "back\\slash\\n"),
        ("邮件", "邮件"),
        ("lone\udc80", "lone\\udc80"),
        ('} 1\ntickbird_up 0 {a="', '} 1\ntickbird_up 0 {a="'),
    ],
)
def test_names_of_any_kind_are_escaped(accept: str, name: str, seen: str) -> None:
    stats = QueueStats(tasks={name: TaskStats(added=3)})
    shown = snapshot(figures(queue=QueueRef(name), depths=[5], stats=stats))

    (depth,) = families(shown, accept)["tickbird_queue_depth"].samples
    (added,) = families(shown, accept)["tickbird_jobs_added"].samples

    assert (depth.labels, depth.value) == ({"queue": seen}, 5)
    assert (added.labels, added.value) == ({"queue": seen, "task": seen}, 3)


def test_a_queue_with_its_own_prefix_is_named_by_its_label() -> None:
    shown = snapshot(figures(queue=QueueRef("mail", "{shop}"), depths=[3]), figures(queue=MAIL))

    assert value(shown, "queue_depth", queue="{shop}:mail") == 3
    assert value(shown, "queue_depth", queue="mail") == 0
