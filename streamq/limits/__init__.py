"""Limits: what is known of providers (rules as data)."""
