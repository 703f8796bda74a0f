"""SMTP: the courier, and what it hands over. Nothing in here knows of Redis."""
