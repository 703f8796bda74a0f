"""The sink's mails, kept to be looked at: the box, what is read of a mail, and how one is found."""

from streamq.inbox.box import Inbox, Kept
from streamq.inbox.reader import Reader
from streamq.inbox.wanted import Wanted

__all__ = ["Inbox", "Kept", "Reader", "Wanted"]
