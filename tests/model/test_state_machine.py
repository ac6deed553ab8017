"""Random sequences of calls against a model; the whole key space is compared after each step.

TICKBIRD_MODEL_SEED and TICKBIRD_MODEL_STEPS repeat a run, or make it longer.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from redis.exceptions import ResponseError

from tests.model.laboratory import Laboratory, laboratory
from tests.model.machine import QueueMachine
from tickbird.storage import scripts

STEPS = int(os.environ.get("TICKBIRD_MODEL_STEPS", "10000"))
SEED = int(os.environ.get("TICKBIRD_MODEL_SEED") or random.randrange(2**32))
STEPS_PER_SEQUENCE = 100
FOUND_WITHIN_STEPS = 10_000
FAULTY_SEED = 1
"""Whether a fault is found must not depend on luck."""


@pytest.fixture
def lab(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Laboratory]:
    with laboratory(redis_url, monkeypatch) as lab:
        yield lab


def run(lab: Laboratory, steps: int, from_seed: int, *phases: Phase) -> None:
    """Run sequences until so many steps are done; the first that fails is made short."""
    rounds = 0
    while lab.steps < steps:
        machine = seed(from_seed + rounds)(type("Machine", (QueueMachine,), {"lab": lab}))
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=-(-(steps - lab.steps) // STEPS_PER_SEQUENCE),
                stateful_step_count=STEPS_PER_SEQUENCE,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                phases=phases or (Phase.generate, Phase.shrink),
            ),
        )
        rounds += 1


def test_queues_do_as_the_model_says(lab: Laboratory, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\nTICKBIRD_MODEL_SEED={SEED} TICKBIRD_MODEL_STEPS={STEPS}\n")
    run(lab, STEPS, SEED)


FAULTS = {
    "an attempt ends without its lock": (
        "lib/finish", "if not holds then return LOCK_LOST end", ""
    ),
    "a job is recovered that is not active": (
        "lib/stall", "== 0 then return false end -- finished or removed", "== -1 then return end"
    ),
    "a retry is not counted as an attempt": (
        "lib/finish", """function ends.retried(call, a)
  local job = call.q.job(a.id)
  redis.call("HINCRBY", job, "atm", 1)""", """function ends.retried(call, a)
  local job = call.q.job(a.id)"""
    ),
    "a parent does not wait for its last child": (
        "lib/parents", '":dependencies") == 0 then', '":dependencies") <= 1 then'
    ),
    "the last comes first": ("lib/push", 'lifo and "RPUSH" or "LPUSH"', '"RPUSH"'),
    "nobody is woken": ("lib/call", "if call.pushed then", "if false then"),
    "a call that is sent again has its effect again": (
        "lib/lane", 'redis.call("SET", memo_key, memo, "PX", 86400000)', ""
    ),
    "what was proposed while the owner ran is lost": (
        "lib/add",
        "  if not v[1] then return end",
        "  if v then return end",
    ),
    "a removed job leaves keys behind": ("lib/remove", 'job .. ":dependencies"', "job"),
    "a job is promoted and stays delayed": (
        "promote_jobs", 'redis.call("ZREM", q.delayed, id)', ""
    ),
    "a paused queue starts jobs": ("lib/take", "if meta.paused then return 0, 0 end", ""),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(lab: Laboratory, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    file, right, wrong = FAULTS[fault]
    read = scripts._read
    assert right in read(file)
    monkeypatch.setattr(
        scripts, "_read", lambda name: read(name).replace(right, wrong if name == file else right)
    )
    monkeypatch.setattr(scripts, "source", cache(scripts.source.__wrapped__))
    monkeypatch.setattr(scripts, "sha", cache(scripts.sha.__wrapped__))

    with pytest.raises((AssertionError, ResponseError)):
        run(lab, FOUND_WITHIN_STEPS, FAULTY_SEED, Phase.generate)
    sys.stdout.write(f"{fault}: {lab.steps} steps\n")
