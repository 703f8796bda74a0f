"""Two mails with redis-py (pip install redis): one composed by streamq from its parts, one whole message.

python redis_py.py [order.eml]
"""

import os
import sys
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError
from redis.retry import Retry

# No retries behind our back: the loop below does it, and can say so.
client = redis.Redis.from_url(
    os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), retry=Retry(NoBackoff(), 0), socket_timeout=10
)


def send(stream: str, fields: dict[str, str | bytes]) -> str:
    """XADD until it is known to be done: a lost reply is no reason for a second mail, since the id is the same.
    redis.ResponseError (OOM, NOPERM, …) ends the program."""
    for attempt in range(1, 4):
        try:
            return client.xadd(stream, fields).decode()
        except (ConnectionError, TimeoutError):
            time.sleep(0.1 * attempt)
    return client.xadd(stream, fields).decode()


message = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "order.eml"

print(
    send(
        "{streamq}:normal",
        {
            "id": "order-18-receipt",
            "from": "Shop <shop@example.com>",
            "to": "Bob <bob@example.net>",
            "subject": "Your order № 18",
            "text": "Thank you, José.",
        },
    )
)
print(
    send(
        "{streamq}:normal",
        {
            "id": "order-18-invoice",
            "envelope_from": "bounces@example.com",
            "envelope_to": "bob@example.net",
            "raw": message.read_bytes(),
        },
    )
)
