"""From the standard library's message to `raw` and its envelope, by the rules of `smtplib.SMTP.send_message`."""

from __future__ import annotations

from copy import copy
from email.errors import MessageError, NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.generator import BytesGenerator
from email.message import Message
from io import BytesIO
from typing import Any, cast

from streamq.mail.address import Address, WrongAddress, parse_list
from streamq.mail.raw import RESENT
from streamq.mail.values import wrong

__all__ = ["taken_apart"]

HARMLESS = (ObsoleteHeaderDefect, NonASCIILocalPartDefect)  # `a@b,,c@d`; RFC 6531


def taken_apart(message: Message) -> tuple[bytes, str, list[str]]:
    """The bytes without Bcc, the return path, the recipients in order and each once. `message` stays as it is.

    Of a message that was resent once (RFC 5322, section 3.6.6) the Resent- fields count, as of a `raw`; where one of
    them stands twice it was resent more often, and nobody can tell which are the last. Raises `MalformedMail` with the
    header's name where an address is none.
    """
    if not isinstance(message, Message):
        raise wrong("raw", repr(message), f"not an email.message.EmailMessage, but {type(message).__name__}")
    resent = [len(message.get_all(name.decode(), ())) for name in RESENT]
    if max(resent) > 1:
        raise wrong("raw", "", "resent more than once: give Mail.raw the envelope")
    prefix = "Resent-" if any(resent) else ""
    recipients: dict[str, None] = {}
    for name in ("To", "Cc", "Bcc"):
        recipients.update((each.spec, None) for each in _addresses(message, prefix + name))
    if not recipients:
        raise wrong("raw", "", f"no recipient in {prefix}To, {prefix}Cc or {prefix}Bcc")
    return_path = _return_path(message, prefix)
    plain = return_path.isascii() and all(map(str.isascii, recipients))
    return _flat(message, utf8=not plain), return_path, list(recipients)


def _return_path(message: Message, prefix: str) -> str:
    """Sender before From (RFC 5322, section 3.6.2)."""
    for name in (f"{prefix}Sender", f"{prefix}From"):
        found = _addresses(message, name)
        if len(found) > 1:
            raise wrong("raw", "", f"more than one address in {name}, and no {prefix}Sender")
        if found:
            return found[0].spec
    raise wrong("raw", "", f"no address in {prefix}From")


def _addresses(message: Message, name: str) -> list[Address]:
    """By our own rules: where a header is broken the library guesses, and a guess is a mail to somebody else."""
    found: list[Address] = []
    for header in message.get_all(name) or ():
        shown, kind = str(header), cast(Any, header)  # a str of the registry, or a plain one by policy `compat32`
        try:
            known = getattr(kind, "addresses", None)
            if known is None:
                found += parse_list(" ".join(shown.split())) if shown.strip() else []
                continue
            for defect in kind.defects:
                if not isinstance(defect, HARMLESS):
                    raise ValueError(str(defect) or type(defect).__name__)
            for each in known:
                found += parse_list(each.addr_spec)
        except ValueError as why:
            wrong_one = why.shown if isinstance(why, WrongAddress) else shown
            raise wrong("raw", wrong_one, f"its {name}: {why}") from None
    return found


def _flat(message: Message, *, utf8: bool) -> bytes:
    """Every line end CRLF, no `From ` turned into `>From `; headers in UTF-8 only where an address asks for it."""
    shown = copy(message)
    del shown["Bcc"], shown["Resent-Bcc"]
    policy: Any = message.policy
    if utf8:
        if not hasattr(policy, "utf8"):
            raise wrong(
                "raw", "", "an address beyond ASCII, which its policy (compat32) cannot write: use EmailMessage"
            )
        policy = policy.clone(utf8=True)
    out = BytesIO()
    try:
        BytesGenerator(out, mangle_from_=False, policy=policy).flatten(shown, linesep="\r\n")
    except (MessageError, ValueError, LookupError) as why:  # a charset that there is none of, a lone surrogate
        raise wrong("raw", "", f"the message cannot be written ({why})") from None
    return out.getvalue()
