from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import require_or_skip
from tickbird.storage import scripts

LUA = Path(scripts.__file__).parent / "lua"
NAMES = sorted(path.stem for path in LUA.glob("*.lua"))
ADDS_MEMORY = {"add_jobs", "update_data", "upsert_schedule"}


@pytest.mark.parametrize("name", NAMES)
def test_a_script_states_its_contract(name: str) -> None:
    lines = (LUA / f"{name}.lua").read_text().splitlines()
    header = "\n".join(lines[:30])

    assert lines[0] == ("#!lua" if name in ADDS_MEMORY else "#!lua flags=allow-oom")
    for part in ("-- KEYS ", "-- ARGV ", "-- Reply "):
        assert part in header


@pytest.mark.parametrize("name", NAMES)
def test_a_library_is_included_once_and_before_its_users(name: str) -> None:
    text = scripts.source(name)

    assert "@include" not in text
    assert text.count("local function open_queue(") == 1
    assert text.count("#!lua") == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_assembled_script_is_clean(name: str, tmp_path: Path) -> None:
    program = require_or_skip("luacheck", "apt-get install lua-check")
    script = tmp_path / f"{name}.lua"
    script.write_text(scripts.source(name).replace("#!lua", "--", 1))

    done = subprocess.run(
        [program, "--std", "lua51", "--read-globals", "KEYS", "ARGV", "cjson", "cmsgpack", "redis",
         "--no-max-line-length", "--ignore", "211/[a-z_]+", "--codes", "--no-color", str(script)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
