"""Webhooks over TLS: who shows no certificate that is trusted gets no event."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamq.errors import SettingsError
from streamq.settings import WebhookSettings
from streamq.sink.certificate import self_signed
from streamq.webhooks.message import message
from streamq.webhooks.sender import Answer, Sender
from webhooks.receiver import KEY, SECRET, receiver
from webhooks.test_webhook_message import event


def hook(url: str, **known: Any) -> WebhookSettings:
    return WebhookSettings.model_validate({"url": url, "secret": SECRET, "timeout": "20s"} | known)


@asynccontextmanager
async def sending(settings: WebhookSettings) -> AsyncIterator[Sender]:
    sender = Sender(settings)
    yield sender
    sender.close()


async def posted(settings: WebhookSettings) -> Answer:
    made = message([event()], batched=False)
    async with sending(settings) as sender:
        return await sender.post(made.headers([KEY], 1_700_000_000), made.body)


async def test_a_certificate_that_nobody_trusts_gets_nothing() -> None:
    with receiver(self_signed().context) as there:
        answer = await posted(hook(there.url))
        assert (answer.status, answer.taken) == (0, False)
        assert "certificate verify failed: self-signed certificate" in answer.words
        assert there.got == []


async def test_an_authority_of_your_own_is_trusted(tmp_path: Path) -> None:
    shown = self_signed()
    (tmp_path / "ca.pem").write_bytes(shown.pem)
    with receiver(shown.context) as there:
        answer = await posted(hook(there.url, tls_ca=str(tmp_path / "ca.pem")))
        assert answer.status == 204
        assert (there.unsigned, len(there.got)) == (0, 1)


async def test_another_authority_is_not(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(self_signed().pem)
    with receiver(self_signed().context) as there:
        answer = await posted(hook(there.url, tls_ca=str(tmp_path / "ca.pem")))
        assert "certificate verify failed" in answer.words
        assert there.got == []


async def test_a_certificate_for_somebody_else_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trusted, and of another name."""
    monkeypatch.setattr("streamq.sink.certificate.ADDRESSES", ("127.0.0.2",))
    shown = self_signed()
    (tmp_path / "ca.pem").write_bytes(shown.pem)
    with receiver(shown.context) as there:
        answer = await posted(hook(there.url, tls_ca=str(tmp_path / "ca.pem")))
        assert "IP address mismatch" in answer.words
        assert there.got == []


async def test_old_tls_is_not_spoken(tmp_path: Path) -> None:
    shown = self_signed()
    (tmp_path / "ca.pem").write_bytes(shown.pem)
    async with sending(hook("https://127.0.0.1/", tls_ca=str(tmp_path / "ca.pem"))) as sender:
        assert sender._tls is not None
        assert sender._tls.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name, why in (("none.pem", "No such file"), ("empty.pem", "no certificate")):
        with pytest.raises(SettingsError, match=rf"^webhooks\.crm\.tls_ca: {why}.*{name}"):
            Sender(hook("https://127.0.0.1/", tls_ca=str(tmp_path / name)), "crm")
    with pytest.raises(ValueError, match="tls_ca: nothing is held against it"):
        hook("http://127.0.0.1/", tls_ca="ca.pem")
