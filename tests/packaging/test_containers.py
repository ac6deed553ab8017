from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = YAML(typ="safe").load(ROOT / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_follows_its_schema() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_the_dockerfile_has_no_findings() -> None:
    run("hadolint", "Dockerfile")


def test_every_part_of_the_product_is_a_service() -> None:
    assert set(SERVICES) == {
        "redis",
        "receivers",
        "worker",
        "dashboard",
        "shop",
        "load",
        "prometheus",
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert int(service["user"].partition(":")[0]) > 0


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_beyond_this_machine(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:"), port
    assert "network_mode" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_or_built_here(name: str) -> None:
    image = SERVICES[name]["image"]

    if image == "tickbird:local":
        assert SERVICES[name]["build"] == "."
    else:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-\w+)?", image), image


def test_the_base_image_has_a_version_and_glibc() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)

    assert images
    assert set(images) == {"python:3.13-slim"}


def test_the_image_does_not_run_as_root() -> None:
    (uid,) = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, flags=re.MULTILINE)

    assert int(uid) > 0
    assert SERVICES["worker"]["user"].startswith(f"{uid}:")


def test_workers_can_be_scaled_and_end_gracefully() -> None:
    worker = SERVICES["worker"]

    assert "container_name" not in worker
    assert "ports" not in worker
    grace_s = int(worker["command"][worker["command"].index("--grace") + 1].removesuffix("s"))
    assert int(worker["stop_grace_period"].removesuffix("s")) > grace_s


def test_what_others_wait_for_has_a_health_check() -> None:
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name], name


def test_redis_neither_evicts_nor_forgets() -> None:
    command = " ".join(SERVICES["redis"]["command"])

    assert "--appendonly yes --appendfsync everysec" in command
    assert "--maxmemory-policy noeviction" in command


def test_the_dashboard_and_prometheus_share_the_demo_password() -> None:
    user, _, password = SERVICES["dashboard"]["environment"]["TICKBIRD_AUTH"].partition(":")
    (scrape,) = YAML(typ="safe").load(ROOT / "monitoring" / "prometheus.yml")["scrape_configs"]

    assert scrape["basic_auth"]["username"] == user
    password_file = ROOT / "monitoring" / scrape["basic_auth"]["password_file"]
    assert password_file.read_text() == password
    assert scrape["static_configs"] == [{"targets": ["dashboard:8000"]}]


def test_what_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied: set[str] = set()
    for sources in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", DOCKERFILE, re.MULTILINE):
        copied |= set(sources.split())

    assert copied == allowed
    for path in copied:
        assert (ROOT / path).exists(), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]) <= copied
