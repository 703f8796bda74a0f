"""The worker: reads the spool, delivers by SMTP, settles. It joins queue and smtp and knows neither's wire."""

from streamq.worker.worker import Worker

__all__ = ["Worker"]
