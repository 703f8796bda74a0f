"""Every key name of a queue, for Python and, rendered from the same table, for the scripts.

A queue lives in one hash slot: all its keys begin with `{NAME}:` and share that hash tag.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

__all__ = ["ALIVE_MS", "GREATEST", "GROUP", "TABLE", "Key", "Keys", "lua_names"]

GROUP = "streamq"
GREATEST = f"{2**64 - 1}-{2**64 - 1}"  # id that a stream takes
ALIVE_MS = 60_000  # a worker reads, or renews its leases, far more often


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the wire protocol's first table. `shape` holds `<…>` where the name goes on."""

    name: str
    shape: str
    type: str
    content: str


TABLE = (
    Key("stream", "<priority>", "stream", "the spool: producers XADD here; group `streamq`"),
    Key("bell", "bell", "stream", "wakes one idle worker"),
    Key("schedule", "schedule", "zset", "next-attempt time in ms"),
    Key("parked", "parked", "zset", "`<route>|<site>[/<tenant>]|<entry, zero-padded>`, score 0: a lane is a range"),
    Key(
        "turns",
        "turns:<priority>:<what>",
        "zset",
        "lanes of tenants at a `<route>|<site>` → whose turn it is",
    ),
    Key("shared", "shared", "set", "`<priority's digit><route>|<site>`: which have such turns"),
    Key("lane", "lane:<bucket>", "hash", "entry → lane"),
    Key("expiry", "expiry", "zset", "mails with a deadline of their own, in ms"),
    Key("due", "due:<priority>", "zset", "`<route>|<site>` by next free slot, in µs"),
    Key("collapse", "collapse", "hash", "digest of (tenant, recipient, `collapse_key`) → the entry that waits for it"),
    Key("held", "held", "zset", "held mails, by entry time in ms"),
    Key("holds", "holds", "hash", "intents and standing rules"),
    Key(
        "limit",
        "limit:<what>",
        "hash",
        "state of a limit, and a pace that was learnt; of a route also its last outcomes; expires when idle",
    ),
    Key(
        "throttled",
        "throttled",
        "zset",
        "routes and sites with a pace that was learnt, by the µs at which it is forgotten",
    ),
    Key("pauses", "pauses", "hash", "routes and sites that are closed → why and until when; no field for an open one"),
    Key("ends", "ends", "zset", "pauses of sites by their end, in µs"),
    Key(
        "grants",
        "grants:<route>",
        "hash",
        "consumer → its share of the route's connections; `*`: what its server was seen to take; expires when idle",
    ),
    Key("slots", "slots:<what>", "zset", "transactions at once of a `<route>|<site>`; expires when idle"),
    Key("limits", "limits", "hash", "limits that hold: `*`, `<route>`, `<route>|<site>` → windows, transactions"),
    Key("layer", "limits:<layer>", "hash", "the same as one layer says it: providers, own, settings, operator"),
    Key("counts", "counts", "hash", "parked, scheduled, held per priority; totals per outcome and class"),
    Key(
        "whose",
        "whose",
        "hash",
        "who delivers: workers, or a `streamq up`; of that its lease, and what came meanwhile",
    ),
    Key("meta", "meta", "hash", "priorities' digits, salt, format, recovery marks"),
    Key("watch", "watch", "string", "who comes for what is due next, and when, in µs; expires"),
    Key("clock", "clock", "string", "largest time seen, in µs; expires when idle"),
    Key("leader", "leader:<role>", "string", "lease of a role"),
    Key("notes", "notes", "hash", "per mail, only when needed: attempts, last reply, reclaims"),
    Key("lease", "lease", "string", "lease tokens"),
    Key("dots", "dots", "hash", "`<consumer>/<connection>` → the entry that is, or was last, past its dot"),
    Key("seen", "seen:<generation>:<bucket>", "hash", "idempotency: digest of (tenant, id) → owning entry"),
    Key(
        "reports",
        "reports:<sender>",
        "list",
        "when the last reports went to one sender (a digest) or to `all`, in ms; expires",
    ),
    Key("body", "body:<entry>", "hash", "what the children of an expanded mail share, and how many are left"),
    Key("bodies", "bodies", "zset", "the mails whose children share a body, by the time of their expansion in ms"),
    Key("template", "template:<name>", "hash", "a stored template: version → time in ms, and JSON"),
    Key("templates", "templates", "hash", "stored templates by name → newest version"),
    Key("dead", "dead", "stream", "dead letters"),
    Key("events", "events", "stream", "events, bounded"),
    Key(
        "webhooks",
        "webhooks",
        "hash",
        "`<name>:state`, `<name>:paused` → JSON: how a webhook does, why it is paused; `<name>:sent`, "
        "`:failures`, `:gone`, `:gone_some` → numbers; `<name>:read` → how far it is: id, how many were ever "
        "there up to it",
    ),
    Key("full", "full", "string", "while producers should wait: `<bound> <used> <most>`"),
    Key(
        "bounds", "bounds", "string", "so many live mails are as many as it takes: for producers, while no worker looks"
    ),
    Key("anew", "anew", "stream", "a stream that is made anew, while one script does that"),
    # Never made: a DEL of it is the first write of scripts that free memory, so that `maxmemory`, which is
    # asked at a script's first write only, lets the rest of them pass.
    Key("absent", "absent", "none", "never made"),
)


class Keys:
    """The names of one queue."""

    __slots__ = ("prefix", "queue")

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.prefix = f"{{{queue}}}:"

    def __getattr__(self, name: str) -> str:
        for key in TABLE:
            if key.name == name and "<" not in key.shape:
                return self.prefix + key.shape
        raise AttributeError(name)

    def stream(self, priority: str) -> str:
        return self.prefix + priority

    def due(self, priority: str) -> str:
        return f"{self.prefix}due:{priority}"

    def turns(self, priority: str, road: str) -> str:
        return f"{self.prefix}turns:{priority}:{road}"

    def lane(self, bucket: int) -> str:
        return f"{self.prefix}lane:{bucket}"

    def limit(self, what: str) -> str:
        return f"{self.prefix}limit:{what}"

    def body(self, entry: str) -> str:
        return f"{self.prefix}body:{entry}"

    def template(self, name: str) -> str:
        return f"{self.prefix}template:{name}"

    def grants(self, route: str) -> str:
        return f"{self.prefix}grants:{route}"

    def reports(self, sender: str) -> str:
        return f"{self.prefix}reports:{sender}"

    def slots(self, target: str) -> str:
        return f"{self.prefix}slots:{target}"

    def layer(self, name: str) -> str:
        return f"{self.prefix}limits:{name}"

    def leader(self, role: str) -> str:
        return f"{self.prefix}leader:{role}"


def lua_names(used: Container[str] | None = None) -> str:
    """Lua: `K.<name>` for fixed keys, `K.<name>(part, …)` for the others; KEYS[1] is the prefix. Of those that are
    `used`, or of all."""
    fixed, functions = [], []
    for key in TABLE:
        if used is not None and key.name not in used:
            continue
        head, *rest = key.shape.replace(">", "<").split("<")
        if not rest:
            fixed.append(f"{key.name} = Q .. '{head}'")
            continue
        parts = [f"'{head}'"] if head else []
        names = []
        for at, piece in enumerate(rest):
            if at % 2 == 0:
                names.append(piece)
                parts.append(piece)
            elif piece:
                parts.append(f"'{piece}'")
        functions.append(f"function K.{key.name}({', '.join(names)}) return Q .. {' .. '.join(parts)} end")
    return "\n".join(["local Q = KEYS[1]", f"local K = {{{', '.join(fixed)}}}", *functions]) + "\n"
