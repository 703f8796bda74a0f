"""Two couriers for the same letters: ours, and one that is nothing but aiosmtplib."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import urlsplit

from aiosmtplib import SMTP
from aiosmtplib.errors import SMTPRecipientsRefused, SMTPResponseException

from streamq.settings import RouteSettings
from streamq.smtp.courier import Courier
from streamq.smtp.letter import Letter, Report
from streamq.smtp.outbox import Outbox

__all__ = ["WAYS", "Answer", "by_aiosmtplib", "by_courier"]

ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?= |$)")

# Every way that a route can be told to speak; a new one joins by itself.
WAYS: dict[str, dict[str, Any]] = {
    mode: {"pipelining": mode} for mode in get_args(RouteSettings.model_fields["pipelining"].annotation)
}
if "chunking" in RouteSettings.model_fields:
    WAYS |= {f"{mode}-bdat": {**settings, "chunking": True} for mode, settings in WAYS.items()}


@dataclass(frozen=True)
class Answer:
    """What a server said to a mail; `report` is ours, where it was our courier that asked."""

    code: int
    text: str
    report: Report | None = None

    @property
    def accepted(self) -> bool:
        return 200 <= self.code < 300

    @property
    def enhanced(self) -> str:
        found = ENHANCED.match(self.text)
        return found[0] if found else ""


async def by_aiosmtplib(url: str, letters: Sequence[Letter]) -> list[Answer]:
    """One after the other, on one connection."""
    place = urlsplit(url)
    answers = []
    async with SMTP(
        hostname=place.hostname, port=place.port, start_tls=False, local_hostname="oracle.example", timeout=60
    ) as client:
        for letter in letters:
            options = ["BODY=8BITMIME"] * letter.eight_bit + ["SMTPUTF8"] * letter.smtputf8
            try:
                _, said = await client.sendmail(
                    letter.envelope_from, [letter.envelope_to], letter.content, mail_options=options
                )
                answers.append(Answer(250, said))
            except SMTPRecipientsRefused as refused:
                (one,) = refused.recipients
                answers.append(Answer(one.code, one.message))
            except SMTPResponseException as refused:
                answers.append(Answer(refused.code, refused.message))
    return answers


async def by_courier(url: str, letters: Sequence[Letter], **way: Any) -> list[Answer]:
    """On one connection, so that each follows the one before; in order of the letters."""
    reports: dict[Letter, Report] = {}
    done = asyncio.Event()

    def note(letter: Letter, report: Report) -> None:
        assert letter not in reports
        reports[letter] = report
        if len(reports) == len(letters):
            done.set()

    route = RouteSettings.model_validate(
        {"url": url, "connections": 1, "mails_per_connection": 10_000, "ehlo": "oracle.example", **way}
    )
    outbox = Outbox()
    courier = Courier("oracle", route, outbox, note)
    running = asyncio.create_task(courier.run())
    for letter in letters:
        outbox.put(letter)
    async with asyncio.timeout(100):
        await done.wait()
    await courier.close(5)
    await running
    return [Answer(report.code, report.reply, report) for report in map(reports.__getitem__, letters)]
