"""Two mails with streamq's own client (pip install streamq): one composed from its parts, one whole message.

python client.py [order.eml]
"""

import os
import sys
from pathlib import Path

from streamq import Client, Mail

message = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "order.eml"
receipt = Mail(
    id="order-18-receipt",
    from_="Shop <shop@example.com>",
    to="Bob <bob@example.net>",
    subject="Your order № 18",
    text="Thank you, José.",
)
invoice = Mail.raw(message.read_bytes(), "bounces@example.com", "bob@example.net", id="order-18-invoice")

with Client(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")) as client:
    for mail in (receipt, invoice):
        print(client.send(mail).entry)
