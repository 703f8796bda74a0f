"""From checked fields to a message: templates are filled in, and several recipients are found."""

from __future__ import annotations

from collections.abc import Callable

from streamq.errors import UnknownTemplate, UnsupportedFields
from streamq.mail import rules
from streamq.mail.mail import Several
from streamq.mail.message import Message, read_message
from streamq.mail.recipients import Recipients, read_recipients
from streamq.mail.rules import Given
from streamq.mail.several import Child, copies, shared_fields, weight_of
from streamq.mail.template import PARTS, Template, installed, split_name
from streamq.mail.values import wrong

__all__ = ["Find", "build"]

Find = Callable[[bytes, int], Template | None]  # by the name that a mail gives, and the mail's time in ms
NOBODY = b"nobody@recipients.invalid"  # stands where each of `recipients` will


def build(
    given: Given,
    find: Find,
    *,
    entry: str,
    at_ms: int,
    salt: bytes,
    max_bytes: int,
    recipients: Recipients | None = None,
) -> tuple[Message, Several | None]:
    """The message; and, where it is not for one recipient, whom it is for (`recipients`: where those were read
    already). Raises MalformedMail, UnsupportedFields, UnknownTemplate."""
    template = _template(given, find, at_ms)
    if template is None and b"template" in given:  # what else is wrong comes first: that no template will mend
        probe = _filled(given, {part: "x" for part in PARTS if part.encode() not in given})
        if b"recipients" in given:
            probe[_read(given, recipients)[0].name.encode()] = NOBODY
        read_message(probe, entry=entry, at_ms=at_ms, salt=salt)
        raise UnknownTemplate(given[b"template"].decode())
    if b"recipients" in given:
        children = _read(given, recipients)
        if template is None and any(child.vars for child in children):
            raise wrong(b"recipients", "", "vars say nothing without template")
        shared = shared_fields(given)
        probe = {**shared, children[0].name.encode(): NOBODY}
        if template is not None:  # each child fills it in with values of its own
            probe = _filled(probe, dict.fromkeys(template.parts, "x"))
        message = read_message(probe, entry=entry, at_ms=at_ms, salt=salt)
        return message, Several(children, shared, True, weight_of(children, shared))
    filled = given
    if template is not None:
        filled = _filled(given, template.render(rules.variables(given), max_bytes))
    message = read_message(filled, entry=entry, at_ms=at_ms, salt=salt)
    if len(message.to) == 1 or len(children := copies(message.to)) == 1:
        return message, None
    shared = shared_fields(given)
    return message, Several(children, shared, False, weight_of(children, shared))


def _read(given: Given, recipients: Recipients | None) -> list[Child]:
    return recipients.get() if recipients is not None else read_recipients(given)


def _template(given: Given, find: Find, at_ms: int) -> Template | None:
    """None where it names none, or one that is not stored."""
    if b"template" not in given:
        if b"vars" in given:
            raise wrong(b"vars", given[b"vars"], "say nothing without template")
        return None
    if b"raw" in given:
        raise wrong(b"template", given[b"template"], "may not stand beside raw, which is the whole message")
    name, version = split_name(given[b"template"])
    rules.name({b"template": name.encode()}, b"template")
    if version is None and b"@" in given[b"template"]:
        raise wrong(b"template", given[b"template"], "not a name, or a name, @ and a version")
    rules.variables(given)
    if not installed():
        raise UnsupportedFields(["template"])
    found = find(given[b"template"], at_ms)
    for part in found.parts if found is not None else ():
        if part.encode() in given:
            raise wrong(part, given[part.encode()], "may not stand beside a template that gives one")
    return found


def _filled(given: Given, parts: dict[str, str]) -> dict[bytes, bytes]:
    """With what the template made of it."""
    fields = {name: value for name, value in given.items() if name not in (b"template", b"vars")}
    for part, text in parts.items():
        # A subject is one line; how its template is wrapped is no business of the reader's.
        value = (" ".join(text.split()) if part == "subject" else text).encode()
        if value:
            fields[part.encode()] = value
    return fields
