from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

from demo import tasks
from demo.files import written_at_once
from demo.receivers import Mode
from tickbird import DoNotRetry

if TYPE_CHECKING:
    from demo_world import Receivers


@pytest.mark.usefixtures("places")
def test_a_confirmation_is_delivered_once(receivers: Receivers) -> None:
    before = receivers.received()

    for _ in range(2):
        tasks.confirm_order("o-mail", "someone@mail.example", "teapot")

    after = receivers.received()
    assert (after.mails, after.mail_repeats) == (before.mails + 1, before.mail_repeats + 1)


@pytest.mark.usefixtures("places")
def test_a_mistyped_address_is_not_tried_again() -> None:
    with pytest.raises(DoNotRetry, match="does not exist"):
        tasks.confirm_order("o-lost", "someone@nowhere.example", "teapot")


def test_an_invoice_is_written_once(places: Path) -> None:
    path = Path(tasks.write_invoice("o-invoice", "cup & saucer", 3, 890))
    written_ns = path.stat().st_mtime_ns

    assert tasks.write_invoice("o-invoice", "cup & saucer", 3, 890) == str(path)

    assert "26.70 EUR" in path.read_text()
    assert "cup &amp; saucer" in path.read_text()
    assert path.stat().st_mtime_ns == written_ns
    assert list(places.rglob("*.*")) == [path]


@pytest.mark.usefixtures("places")
async def test_the_warehouse_packs_an_order_once(receivers: Receivers) -> None:
    before = receivers.received()

    for _ in range(2):
        await tasks.tell_warehouse("o-warehouse", "teapot", 1)

    after = receivers.received()
    assert (after.orders, after.order_repeats) == (before.orders + 1, before.order_repeats + 1)


@pytest.mark.usefixtures("places")
async def test_a_closed_warehouse_fails_the_attempt(receivers: Receivers) -> None:
    receivers.set_mode(Mode.FAIL)

    with pytest.raises(httpx.HTTPStatusError, match="503"):
        await tasks.tell_warehouse("o-closed", "teapot", 1)


def test_a_gift_card_drawn_twice_is_the_same_picture(places: Path) -> None:
    path = Path(tasks.draw_gift_card("o-card", "teapot"))
    first = path.read_bytes()

    tasks.draw_gift_card("o-card", "teapot")

    assert path.read_bytes() == first
    with Image.open(path) as picture:
        assert picture.size == (160, 100)
    assert [file for file in places.rglob("*") if file.is_file()] == [path]


def test_a_file_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    def write_half() -> None:
        with written_at_once(tmp_path / "invoice.html") as draft:
            draft.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()

    assert list(tmp_path.iterdir()) == []


def test_each_task_says_how_it_is_idempotent() -> None:
    assert tasks.app.tasks
    for task in tasks.app.tasks.values():
        assert "Idempotent:" in (task.function.__doc__ or "")
