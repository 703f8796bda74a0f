"""The producer's side in Python: mails, and two clients that queue them. `from streamq import …` has these names, too.

A room beside `worker`: it stands on `queue` (which alone talks to Redis: queue/producer.py) and on `mail` (whose
rules judge a mail on both sides), and nothing stands on it but `cli`.
"""

from streamq.client.async_client import AsyncClient
from streamq.client.client import Client
from streamq.client.encode import Attachment, Recipient
from streamq.client.mail import Mail
from streamq.client.result import NotSent, Result, Sent

__all__ = ["AsyncClient", "Attachment", "Client", "Mail", "NotSent", "Recipient", "Result", "Sent"]
