"""`python -m bench fuzz --target tables`: files that people write in TOML, and JSON in the fields of a mail, as bombs.

TOML     settings, provider rules, tables of replies, the sink's rules, scenarios: what is read of them is a value, or
         one `SettingsError` of bounded length, in bounded time; whatever was nested, numbered, dotted, or cut off
JSON     `recipients`, `metadata`, `vars`, `headers`, `attachments`, `tags`: a mail, or one of the errors of a mail
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

from streamq.errors import SettingsError
from streamq.limits.rules_file import check_rules
from streamq.settings import load_settings
from streamq.simulate.scenario import BUILT_IN, read_scenario
from streamq.sink.rules_file import read_rules
from streamq.smtp.reply_entry import read_entries

__all__ = ["bomb", "tables"]

ERROR_MOST = 100_000  # characters: a hundred mistakes, each with its value, cut
LARGE = 200  # each so manieth case is as large as a file may be
SETTINGS = """\
queue = "news"
priorities = ["high", "normal", "low"]
retry = "1m,5m"
max_age = "5d"
in_hand = 50
lease_seconds = 30
jitter = 0.2
pii = "hash"
log = "json"
on_ambiguous = "hold"
report_rate = "100/h"
report_from = "postmaster@example.com"
delay_warning = "4h"
max_memory = 0.8
dead_age = "30d"
metrics = "127.0.0.1:9090"
providers = "relays"
[limits]
rate = ["100/s"]
[routes.main]
url = "smtp://user:secret@relay.example:587"
connections = 20
rate = ["50/s", "1000/m"]
pipelining = "overlap"
chunking = true
tls = "require"
tls_min = 1.3
tls_name = "relay.example"
tls_pin = ["%b"]
auth = ["xoauth2", "plain"]
ehlo = "mail.example.com"
family = "ipv4"
source = ["192.0.2.10"]
idle = "20s"
dot_timeout = "10m"
transaction_timeout = {high = "1m", "*" = "1h"}
[routes.main.token]
url = "https://login.example/token"
client_id = "id"
client_secret = "hidden"
refresh_token = "hidden"
scope = "mail"
timeout = "5s"
[routes.spare]
url = "smtps://relay2.example"
weight = 0
reserved = true
mails_per_connection = 10
[sites."*"]
rate = ["10/s"]
[sites."gmail.com"]
rate = ["50/s", "60000/h"]
connections = 5
[[choice]]
routes = ["main", "spare"]
sender = ["example.net"]
tenant = ["t1"]
priority = ["high"]
[webhooks.shop]
url = "https://example.net/hook"
secret = "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
types = ["email.bounced"]
domain = "example.net"
batch = 50
timeout = "5s"
retry = "1m,5m"
[adapt]
loss = 0.02
cut = 0.8
floor = "1/s"
rest = "1m"
ramp = 30
""".replace("%b", "ab" * 32)
VALUES = (
    "1", "-1", "0", "9" * 400, "9" * 5000, "0x" + "f" * 5000, "1e999", "-inf", "nan", "1.5", "true", '""', '"x"',
    "[]", "{}", "''", "[" * 300 + "]" * 300, "[" * 5000, "{a=" * 40 + "1" + "}" * 40, "1979-05-27T07:32:00Z",
    "07:32:00", '"\\u0000"', '"\\r\\n"', "'''a\nb'''", '"' + "x" * 3000 + '"', "[[1]]", "[{}]", '["a", 1]',
    "{a.b.c = 1}", "2026-99-99", '"5/s"', '["0/s"]', "9223372036854775808", '"(a+)+$"', '"(a*)*b"', '"(?P<x>"',
    '"smtp://["', '"redis://:pw@x:99999/"', "1_000", "0b1", "0o7",
)  # fmt: skip
LARGE_PARTS = (
    "a.", "[a]\n", "[[a]]\n", "a = 1\n", "'a'.", '"".', "[", "{", "{a=", "a = [", '"', "'''", "#", "\n",
    "x = {a.a.a.a=1}\n", "[[rule]]\n", "[[provider]]\n", "[[reply]]\n", "[a.", "\u00e9", "\\", "x=1,",
    '[[sites]]\nname = "a"\n',
)  # fmt: skip


@cache
def _sound() -> tuple[str, ...]:
    """A good text of each kind, in the order of `READERS`."""
    rules, replies = files("streamq.limits"), files("streamq.smtp")
    profile = files("streamq.sink").joinpath("profiles", "yahoo.toml").read_text("utf-8")
    profile = "\n".join(line for line in profile.splitlines() if not line.startswith("source = "))
    return (
        SETTINGS,
        "[[provider]]".join(rules.joinpath("providers.toml").read_text("utf-8").split("[[provider]]")[:4]),
        "\n".join(replies.joinpath("replies.toml").read_text("utf-8").splitlines()[:120]),
        profile,
        BUILT_IN,
    )


def _text(chance: random.Random, number: int, sound: str) -> str:
    if number % LARGE == LARGE - 1:
        part = chance.choice(LARGE_PARTS)
        head, end = chance.choice(("", "a = ", "[", "x = {")), chance.choice(("", "a = 1", "]", "}"))
        return head + part * (1_000_000 // len(part)) + end
    lines = sound.split("\n")
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        at = chance.randrange(len(lines))
        name, equals, value = lines[at].partition(" = ")
        match chance.randrange(6):
            case 0 | 1 if equals:
                lines[at] = f"{name} = {chance.choice(VALUES)}"
            case 2:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case 3:
                del lines[at]
                lines = lines or [""]
            case 4 if equals:
                lines[at] = f"{'.'.join([name] * chance.choice((2, 40, 400)))} = {value}"
            case _:
                lines.insert(at, f"{chance.choice(('x', 'rate', 'name', 'url', 'text'))} = {chance.choice(VALUES)}")
    text = "\n".join(lines)
    for _ in range(chance.choice((0, 0, 1, 3)) if text else 0):
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(("\0", '"', "'", "[", "]", "=", ".", "\n", "é", "#", "\\")) + text[at + 1 :]
    return text


@cache
def _place() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="streamq-fuzz-")


def _from_file(read: Callable[[Path], object]) -> Callable[[str], None]:
    def run(text: str) -> None:
        path = Path(_place().name) / "file.toml"
        path.write_text(text, "utf-8")
        read(path)

    return run


def _rules(text: str) -> None:
    _, mistakes = check_rules(text, "rules.toml")
    if mistakes:
        raise SettingsError("; ".join(each.of("rules.toml") for each in mistakes))


READERS: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("settings", _from_file(load_settings)),
    ("provider rules", _rules),
    ("replies", lambda text: read_entries(text, "replies.toml", sourced=False)),
    ("sink's rules", lambda text: read_rules(text, "sink.toml")),
    ("scenario", _from_file(read_scenario)),
)

# -- JSON ---------------------------------------------------------------------------------------------

OPENED = ("[", '{"a":', '[{"to":', '{"to":"a@x.de","vars":', '[{"filename":', "[[],", '{"a":1,"b":')
CLOSED = {"[": "]", "{": "}"}
WORDS = (
    "1", "-0", "1e308", "1e309", "1.10", "9" * 20, "9" * 400, "-" + "9" * 5000, "1e-999999999", "0." + "1" * 3000,
    "null", "true", '""', '"x"', '"\\ud800"', '"\\u0000"', '"a@x.de"', "[]", "{}", '{"a":1,"a":2}', "NaN",
    "Infinity", "01", '"' + "x" * 5000 + '"', "\x00", "", '{"__class__":"os"}',
)  # fmt: skip
JSON_FIELDS = (b"recipients", b"metadata", b"vars", b"headers", b"attachments", b"tags", b"to")


def bomb(chance: random.Random, number: int) -> dict[bytes, bytes]:
    """A mail whose JSON is deep, wide, of strange numbers, or cut off."""
    fields = {b"from": b"shop@example.com", b"subject": b"Hi", b"text": b"Hello"}
    if (field := chance.choice(JSON_FIELDS)) != b"recipients":
        fields[b"to"] = b"bob@example.net"
    opened = [chance.choice(OPENED) for _ in range(chance.choice((0, 1, 2, 3)))]
    deep = chance.choice((1, 1, 1, 30, 100, 120, 255, 1100, 5000))
    word = chance.choice(WORDS)
    inner = ",".join(
        [word] * (100_000 // (len(word) + 1) if number % LARGE == LARGE - 2 else chance.choice((1, 1, 2, 30)))
    )
    if chance.random() < 0.5:
        inner = f'[{{"to":"a@x.de","metadata":{{"n":{inner}}}}}]' if field == b"recipients" else f'{{"n":[{inner}]}}'
    made = "".join(opened) * deep + inner
    closes = "".join(CLOSED[one] for one in reversed("".join(opened)) if one in CLOSED)
    if chance.random() < 0.8:
        made += closes * deep
    fields[field] = made.encode()[: 1 << 19]
    return fields


# -- both ---------------------------------------------------------------------------------------------


def tables(chance: random.Random, number: int, loop: asyncio.AbstractEventLoop) -> str:
    """One case of TOML; how it ended."""
    kind = chance.randrange(len(READERS))
    name, read = READERS[kind]
    text = _text(chance, number, _sound()[kind])
    try:
        read(text)
    except SettingsError as wrong:
        said = str(wrong)
        assert len(said) < ERROR_MOST, f"an error of {len(said)} characters: {said[:200]}"
        assert "secret@" not in said, "a password in an error"
        return f"{name}: wrong"
    return f"{name}: fine"
