from __future__ import annotations

import smtplib
from email.message import EmailMessage
from typing import TYPE_CHECKING

import httpx
import pytest

from demo.receivers import Effects, Mode

if TYPE_CHECKING:
    from demo_world import Receivers


def test_a_webhook_takes_effect_once_per_key(receivers: Receivers) -> None:
    before = receivers.received()

    answers = [send_webhook(receivers, "once") for _ in range(3)]

    assert [answer.json()["packed"] for answer in answers] == [True, False, False]
    assert receivers.received().orders == before.orders + 1
    assert receivers.received().order_repeats == before.order_repeats + 2


def test_a_webhook_without_a_key_is_refused(receivers: Receivers) -> None:
    assert receivers.client.post("/webhooks").status_code == 400


def test_a_failing_warehouse_takes_nothing(receivers: Receivers) -> None:
    before = receivers.received()
    receivers.set_mode(Mode.FAIL)

    assert send_webhook(receivers, "failing").status_code == 503
    assert receivers.received().orders == before.orders


def test_a_silent_warehouse_lets_the_caller_time_out(receivers: Receivers) -> None:
    receivers.set_mode(Mode.HANG)

    with pytest.raises(httpx.ReadTimeout):
        send_webhook(receivers, "silent", timeout=0.2)


def test_a_slow_warehouse_takes_it_all_the_same(receivers: Receivers) -> None:
    receivers.set_mode(Mode.SLOW)

    assert send_webhook(receivers, "slow").json() == {"packed": True}


def test_an_unknown_mode_is_refused(receivers: Receivers) -> None:
    assert receivers.client.post("/mode", json={"mode": "sulk"}).status_code == 400
    assert receivers.received().mode is Mode.OK


def test_a_mailbox_keeps_one_mail_per_message_id(receivers: Receivers) -> None:
    before = receivers.received()

    for _ in range(2):
        send_mail(receivers, "<twice@shop.example>", "someone@mail.example")

    assert receivers.received().mails == before.mails + 1
    assert receivers.received().mail_repeats == before.mail_repeats + 1


def test_mail_to_an_unknown_mailbox_is_refused(receivers: Receivers) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send_mail(receivers, "<lost@shop.example>", "someone@nowhere.example")


def test_the_memory_of_effects_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.receivers._MOST_REMEMBERED", 2)
    effects = Effects()

    assert [effects.take(key) for key in ("a", "b", "c", "b", "a")] == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert len(effects) == 2


def send_webhook(receivers: Receivers, key: str, timeout: float = 10) -> httpx.Response:
    return receivers.client.post("/webhooks", headers={"Idempotency-Key": key}, timeout=timeout)


def send_mail(receivers: Receivers, message_id: str, to: str) -> None:
    mail = EmailMessage()
    mail["Message-ID"] = message_id
    mail["From"] = "orders@shop.example"
    mail["To"] = to
    with smtplib.SMTP("127.0.0.1", receivers.smtp_port, timeout=10) as smtp:
        smtp.send_message(mail)
