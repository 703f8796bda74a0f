"""A mail: the fields of an entry, checked, and the bytes that go to a server."""

from streamq.mail.fields import BUILT, able, parse
from streamq.mail.glance import Glance, glance, site_and_id
from streamq.mail.mail import Mail
from streamq.mail.stamp import message_id

__all__ = ["BUILT", "Glance", "Mail", "able", "glance", "message_id", "parse", "site_and_id"]
