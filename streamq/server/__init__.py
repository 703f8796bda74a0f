"""The embedded server: a Redis of streamq's own, where the settings name none.

    with start(load_settings()) as server:
        redis = Redis.from_url(server.url)

Every program of one user shares one server per directory. Three kernel locks (flock) in its data directory
say who is there; the kernel takes them back from whoever dies, however it dies:

    users.lock    shared, by every program that uses the server
    keeper.lock   by the keeper, the small process that owns the server (`python -m streamq.server`)
    server.lock   by keeper and server: two servers never write the same files

Whoever finds `keeper.lock` free takes it and starts a keeper that inherits it. The keeper starts the server,
brings it back when it is killed, and asks for `users.lock` alone: it gets it in the moment in which nobody
uses the server any more, ends the server and goes, while a program that comes just then waits for the lock.

Tying the server to the program that started it (PR_SET_PDEATHSIG) lost: it would take the server away from
the others. It ties the server to its keeper instead.
"""

from __future__ import annotations

from streamq.server.address import redis_cli_line
from streamq.server.binary import find_binary
from streamq.server.share import Server, start

__all__ = ["Server", "find_binary", "redis_cli_line", "start"]
