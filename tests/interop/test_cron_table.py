from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop

_GENERATOR = Path(__file__).parent / "node" / "cron_table.mjs"
_TABLE = Path(__file__).parent.parent / "unit" / "cron_table.json"


def test_the_checked_in_cron_table_is_what_cron_parser_says(node_modules: Path) -> None:
    made = subprocess.run(
        ["node", str(_GENERATOR), str(node_modules)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip

    assert made.stdout.splitlines() == _TABLE.read_text().splitlines()
