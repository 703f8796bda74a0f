"""The names of lanes: `<route>[><route>…]|<site>[/<tenant>]`.

What stands before the tenant is its road: all lanes of a road wait for the same slots, and take turns (lib/index.lua).
A tenant is percent-encoded (RFC 3986, section 2.1), so that it holds neither `|` nor `/`; a long one is cut, and told
from others by its hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote

__all__ = ["lane_of", "road_of", "site_in", "tenant_in", "ways_of"]

LONG, KEPT = 64, 40  # characters of a tenant that is encoded
KNOWN = 4096  # lanes that were taken apart: each mail's is, three times


def lane_of(ways: Iterable[str], site: str, tenant: str | None = None) -> str:
    """`ways` best first."""
    road = f"{'>'.join(ways)}|{site}"
    return f"{road}/{_encoded(tenant)}" if tenant else road


def _encoded(tenant: str) -> str:
    text = quote(tenant, safe="")
    if len(text) <= LONG:
        return text
    return f"{text[:KEPT]}~{blake2b(tenant.encode(), digest_size=8).hexdigest()}"


@lru_cache(maxsize=KNOWN)
def ways_of(lane: str) -> tuple[str, ...]:
    """Its routes, best first."""
    return tuple(lane.partition("|")[0].split(">"))


def road_of(lane: str) -> str:
    return lane.partition("/")[0]


@lru_cache(maxsize=KNOWN)
def site_in(lane: str) -> str:
    return road_of(lane).partition("|")[2]


def tenant_in(lane: str) -> str:
    """As it stands there: encoded; "" where there is none."""
    return lane.partition("/")[2]
