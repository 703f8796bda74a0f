"""A mail server to test against, and the ledger of what it accepted."""

from streamq.sink.ledger import Counters, Ledger
from streamq.sink.mailbox import Mailbox, Received
from streamq.sink.rules import Rule, Rules
from streamq.sink.rules_file import load_rules
from streamq.sink.server import Sink

__all__ = ["Counters", "Ledger", "Mailbox", "Received", "Rule", "Rules", "Sink", "load_rules"]
