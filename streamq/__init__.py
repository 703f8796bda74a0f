"""streamq: an e-mail delivery queue in Redis."""

__version__ = "0.1.0"

__all__ = ["__version__"]
