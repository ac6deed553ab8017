"""What users install: the wheel, unpacked elsewhere, started from another folder."""

from __future__ import annotations

import http
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.packaging


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network by the build backend of this environment."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the wheel's files come before the checkout's."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wheel)],
        check=True,
    )  # fmt: skip
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_the_wheel_carries_scripts_templates_and_static_files_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    for needed in (
        "tickbird/py.typed", "tickbird/storage/lua/finish_and_take.lua",
        "tickbird/storage/lua/lib/finish.lua", "dashboard/templates/layout.html",
        "dashboard/static/css/app.css",
    ):  # fmt: skip
        assert needed in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tickbird", "dashboard"}


def test_the_installed_core_does_not_need_the_dashboards_packages(
    installed: dict[str, str], tmp_path: Path
) -> None:
    code = (
        "import sys, tickbird; from tickbird.storage import scripts; "
        "print(tickbird.__file__); scripts.source('add_jobs'); "
        "sys.exit(bool({'litestar', 'jinja2', 'plotly', 'prometheus_client'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=installed, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout


def test_the_installed_dashboard_serves_pages_and_static_files(
    installed: dict[str, str], tmp_path: Path, redis_url: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tickbird.cli", "dashboard", "--port", "0", "--redis-url", redis_url],
        cwd=tmp_path, env=installed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        address = next(
            found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))
        )
        page = _get_when_ready(address)
        static = re.search(r'href="([^"]+app\.css[^"]*)"', page)
        assert "Tickbird" in page
        assert static is not None
        assert "--paper" in _get(address.rstrip("/") + static[1])
    finally:
        process.terminate()
        assert process.wait(timeout=15) == 0
        process.stdout.close()


def _get_when_ready(url: str) -> str:
    """The page; 503 says that the first sample is not there yet."""
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        try:
            return _get(url)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        time.sleep(0.05)
    raise TimeoutError(url)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
