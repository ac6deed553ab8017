"""Files of others are what they claim to be; our templates keep what the CSP promises."""

from __future__ import annotations

import base64
import re
from hashlib import sha384

import pytest

from dashboard.assets import STATIC, TEMPLATES

KNOWN = {
    "htmx-4.0.1.min.js": "Qp9rdC8H7EqOoX+nR0P3RPG2Noji+qdwJlGpfzwQJsfOpp3sGwIdSP9xO3+UlEhn",
    "hx-sse-4.0.1.min.js": "v8HvucQ+ohQhMg0arboXc5049yNR46QKMjphs7YDch+Wm7zpfK5XVS01f26mQDJV",
    "plotly-basic-4.1.1.min.js": "N2HZsG+IG/3J8CwhGGYz/kmzZ0sprpPWwjhor9ZI4lxuf47i9DXK2/NDGxMaJiEb",
}


def test_vendored_files_match_their_table_and_the_published_hashes() -> None:
    table = (STATIC / "vendor" / "VENDORED.md").read_text()
    files = {path.name: path for path in (STATIC / "vendor").glob("*.js")}

    assert files.keys() == KNOWN.keys()
    for name, path in files.items():
        digest = base64.b64encode(sha384(path.read_bytes()).digest()).decode()
        assert digest == KNOWN[name]
        assert re.search(rf"\| {re.escape(name)} \|.*`{re.escape(digest)}`", table)


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_templates_hold_nothing_that_runs_inline(path: object) -> None:
    text = path.read_text()  # type: ignore[attr-defined]

    assert text.startswith("{#"), "a template begins with its purpose"
    assert not re.search(r"\bstyle\s*=", text)
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"\bon\w+\s*=|hx-on|js:|javascript:", text)
    assert "|safe" not in text.replace(" ", "")
    assert not re.search(r'(?:src|href|action)="https?:', text)


@pytest.mark.parametrize("name", ["app.js", "charts.js", "theme.js"])
def test_our_scripts_never_parse_markup(name: str) -> None:
    text = (STATIC / "js" / name).read_text()

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
    )
    assert "http://" not in text
    assert "https://" not in text
