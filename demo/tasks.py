"""The shop's tasks: what users of Tickbird write.

Run them with `tickbird worker demo.tasks:app -q mail,invoices,webhooks,media,reports`.

A job may run twice (a worker can die after the work and before it has said so), so
each task is idempotent by its order: doing it again has no second effect. Each says how.
The shop adds one job per order and task: its job id is made of both.
"""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from email.message import EmailMessage
from html import escape

import httpx
from PIL import Image, ImageDraw, ImageFilter

from demo.files import written_at_once
from demo.places import Places
from tickbird import App, Backoff, Context, DoNotRetry, Every, Retry

app = App("shop")

TLS = ssl.create_default_context()  # made once: it costs more than a request


@app.task(queue="mail", retry=Retry(attempts=5, backoff=Backoff("exponential", "1s", jitter=0.5)))
def confirm_order(order: str, to: str, product: str) -> str:
    """Mail the customer that we have the order.

    Idempotent: the Message-ID is made of the order, and a mailbox keeps one mail per Message-ID.
    """
    mail = EmailMessage()
    mail["Message-ID"] = f"<{order}@shop.example>"
    mail["From"] = "orders@shop.example"
    mail["To"] = to
    mail["Subject"] = f"Your order {order}"
    mail.set_content(f"Thank you! We are packing: {product}.\n")

    places = Places.from_environment()
    with smtplib.SMTP(places.smtp_host, places.smtp_port, timeout=10) as smtp:
        try:
            smtp.send_message(mail)
        except smtplib.SMTPRecipientsRefused as refused:
            raise DoNotRetry(f"the mailbox {to} does not exist") from refused
    return f"mailed to {to}"


@app.task(queue="invoices")
def write_invoice(order: str, product: str, quantity: int, unit_price_cents: int) -> str:
    """Write the invoice as an HTML file.

    Idempotent: the file is named after the order, appears whole or not at all, and is kept once there.
    """
    path = Places.from_environment().files / "invoices" / f"{order}.html"
    if not path.exists():
        total = quantity * unit_price_cents / 100
        with written_at_once(path) as draft:
            draft.write_text(
                f"<!doctype html><title>Invoice {order}</title><h1>Invoice {order}</h1>"
                f"<p>{quantity} &times; {escape(product)}<p>Total: {total:.2f} EUR\n"
            )
    return str(path)


@app.task(
    queue="webhooks", retry=Retry(attempts=4, backoff=Backoff("exponential", "1s", jitter=0.5))
)
async def tell_warehouse(order: str, product: str, quantity: int) -> str:
    """Tell the warehouse's server what to pack.

    Idempotent: the order goes along as Idempotency-Key, and the receiver acts once per key.
    """
    async with httpx.AsyncClient(verify=TLS, timeout=2) as client:
        answer = await client.post(
            Places.from_environment().webhook_url,
            json={"order": order, "product": product, "quantity": quantity},
            headers={"Idempotency-Key": order},
        )
    answer.raise_for_status()
    return f"warehouse answered {answer.status_code}"


@app.task(queue="media")
def draw_gift_card(order: str, product: str) -> str:
    """Draw the order's gift card and make its thumbnail.

    Idempotent: picture and file name depend on the order alone, and the file appears whole or not at all.
    """
    path = Places.from_environment().files / "cards" / f"{order}.png"
    red, green, blue = hashlib.sha256(order.encode()).digest()[:3]
    card = Image.new("RGB", (640, 400), (red, green, blue))
    pen = ImageDraw.Draw(card)
    for step in range(0, 640, 16):
        pen.line([(step, 0), (640 - step, 400)], fill=(255 - red, 255 - green, blue), width=3)
    pen.text((24, 360), product, fill="white")
    card = card.filter(ImageFilter.GaussianBlur(1))
    card.thumbnail((160, 100))
    with written_at_once(path) as draft:
        card.save(draft, format="PNG")
    return str(path)


@app.task(queue="reports", schedule=Every("30s"))
def report_sales(ctx: Context) -> str:
    """Count the invoices so far; a real shop does it nightly: Cron("0 3 * * *", tz="Europe/Berlin").

    Idempotent: the file is named after the run's due time, which is the end of the run's job id.
    """
    files = Places.from_environment().files
    count = sum(1 for _ in (files / "invoices").glob("*.html"))
    ctx.sync.log(f"{count} invoices counted")
    path = files / "reports" / f"{ctx.job_id.rpartition(':')[2]}.txt"
    with written_at_once(path) as draft:
        draft.write_text(f"{count} invoices\n")
    return f"{count} invoices"
