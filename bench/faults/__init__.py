"""Fault runs: real workers, a real server, lines of our own, and books that are held against the sink's."""
