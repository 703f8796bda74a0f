"""A mail server to test against, and the ledger of what it accepted. `streamq.sink.server` shows how it is used."""

from streamq.sink.auth import Auth, User
from streamq.sink.certificate import Certificate, self_signed
from streamq.sink.ledger import Counters, Ledger
from streamq.sink.limits import Connections, Greylist, Penalty, Rate
from streamq.sink.mailbox import Mailbox, Received
from streamq.sink.rules import Rule, Rules
from streamq.sink.rules_file import load_profile, load_rules
from streamq.sink.server import Sink

__all__ = [
    "Auth",
    "Certificate",
    "Connections",
    "Counters",
    "Greylist",
    "Ledger",
    "Mailbox",
    "Penalty",
    "Rate",
    "Received",
    "Rule",
    "Rules",
    "Sink",
    "User",
    "load_profile",
    "load_rules",
    "self_signed",
]
