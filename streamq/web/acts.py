"""What the page may have done: the verbs of the commands, one order a request."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from streamq.errors import NotFound, OfTenants
from streamq.mail.domain import to_wire
from streamq.queue.children import children_named, standing_for
from streamq.queue.letters import dead_letter, dead_reasons, remove_dead, requeue_dead
from streamq.queue.limits import OPERATOR, operator_text, set_limits
from streamq.queue.look import locate, now_ms
from streamq.queue.routes import route_views
from streamq.queue.spool import Spool
from streamq.queue.steer import apply, unable, unset_rule
from streamq.queue.walk import is_entry
from streamq.settings.values import Duration, Windows

__all__ = ["RULE_MOST", "NotDone", "Order", "carry_out", "read_order"]

RULE_MOST = 600  # characters of a rule's name that can be ended here: an id and a tenant have 256 each


class NotDone(Exception):
    """The order cannot be carried out; the text says why."""


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Closing(_Order):
    """A route, or a site (on a route, or `*`: on all of them)."""

    kind: Literal["route", "site"]
    name: str = Field(min_length=1, max_length=255)
    route: str = Field("*", min_length=1, max_length=63)


class Pause(_Closing):
    verb: Literal["pause"]
    for_: Duration | None = Field(None, alias="for")
    reason: str = Field("", max_length=300)


class Resume(_Closing):
    verb: Literal["resume"]


class Limit(_Closing):
    """None: that part stays as operators have set it; no windows, 0 connections: no limit. `unset`: what the files say
    holds again."""

    verb: Literal["limit"]
    rate: Windows | None = Field(None, max_length=10)
    connections: int | None = Field(None, ge=0, le=1000)
    unset: bool = False


class Dead(_Order):
    """Letters by id; or those of a class and a reason (its `gist`), of one domain or of all, that `dead_reasons`
    finds."""

    verb: Literal["requeue", "discard"]
    letters: list[Annotated[str, Field(max_length=50)]] | None = Field(None, min_length=1, max_length=1000)
    class_: str | None = Field(None, alias="class", max_length=500)
    gist: str | None = Field(None, max_length=500)
    domain: str | None = Field(None, max_length=300)


class Mail(_Order):
    """One by its id, or several by their entries."""

    verb: Literal["retry", "hold", "unhold", "cancel", "bounce"]
    id: str | None = Field(None, min_length=1, max_length=256)
    tenant: str | None = Field(None, max_length=256)
    entries: list[Annotated[str, Field(max_length=50)]] | None = Field(None, min_length=1, max_length=1000)


class End(_Order):
    """A standing rule, by its name (`steer.set_rule`). What it has held stays held."""

    verb: Literal["end"]
    rule: str = Field(min_length=1, max_length=RULE_MOST)


_Any = Pause | Resume | Limit | Dead | Mail | End
Order = Annotated[_Any, Field(discriminator="verb")]
_ORDER: TypeAdapter[_Any] = TypeAdapter(Order)


def read_order(body: bytes) -> _Any:
    """Raises `NotDone` that names field and value."""
    try:
        return _ORDER.validate_json(body)
    except ValidationError as wrong:
        error = wrong.errors(include_url=False)[0]
        where = ".".join(str(part) for part in error["loc"][1:]) or "order"
        value = error["input"]
        got = (
            f" (got {str(value)[:80]!r})"
            if isinstance(value, str | int | float) and str(value) not in error["msg"]
            else ""
        )
        raise NotDone(f"{where}: {error['msg'].removeprefix('Value error, ')}{got}") from None


async def carry_out(spool: Spool, order: _Any) -> dict[str, Any]:
    """What was done. Raises `NotDone`."""
    if isinstance(order, Dead):
        return await _dead(spool, order)
    if isinstance(order, Mail):
        return await _mail(spool, order)
    if isinstance(order, End):
        if not await unset_rule(spool, order.rule):
            raise NotDone(f"rule: no such rule stands (got {order.rule[:80]!r})")
        return {"rule": order.rule}
    target = await _target(spool, order)
    if isinstance(order, Limit):
        await _limit(spool, order, target)
        return {"target": target}
    if isinstance(order, Resume):
        return {"target": target, "status": (await spool.scripts.pause("resume", [target]))[0]}
    if order.for_ == 0:
        raise NotDone("for: no time at all (got '0')")
    till_us = 0 if order.for_ is None else (await now_ms(spool) + order.for_) * 1000
    [status] = await spool.scripts.pause("pause", [target], till_us=till_us, reason=order.reason)
    return {"target": target, "status": status}


async def _target(spool: Spool, order: _Closing) -> str:
    if order.kind == "route":
        await _known(spool, order.name)
        return order.name
    if order.name == "*" and isinstance(order, Limit):
        site = "*"
    else:
        try:
            site = to_wire(order.name.removesuffix(".") or order.name)
        except ValueError as wrong:
            raise NotDone(f"name: {wrong} (got {order.name[:80]!r})") from None
        site = site if site.startswith("[") else site.lower()
    if order.route != "*":
        await _known(spool, order.route)
    return f"{order.route}|{site}"


async def _known(spool: Spool, name: str) -> None:
    view = next(each for each in await route_views(spool, [name]) if each.name == name)
    if name not in spool.settings.ways and not (view.shares or view.closed or view.parked or view.learnt):
        raise NotDone(f"route: no such route (got {name!r})")


async def _limit(spool: Spool, order: Limit, target: str) -> None:
    if order.unset:
        text = ""
    elif order.rate is None and order.connections is None:
        raise NotDone("limit: a rate, connections, or unset")
    else:
        if order.rate and len({each.window_ms for each in order.rate}) < len(order.rate):
            raise NotDone("rate: one of each window")
        text = await operator_text(spool, target, order.rate, order.connections)
    await set_limits(spool, OPERATOR, {target: text})


async def _dead(spool: Spool, order: Dead) -> dict[str, Any]:
    sizes: dict[str, int] = {}
    if order.letters is not None:
        for name in dict.fromkeys(order.letters):
            letter = await dead_letter(spool, name)
            if letter is not None:
                sizes[name] = letter.size
    elif order.class_ is None or order.gist is None:
        raise NotDone("order: letters, or a class and a gist (and a domain)")
    else:
        reasons, _ = await dead_reasons(spool)
        wanted = order.class_, order.gist
        sizes = next((each.letters(order.domain) for each in reasons if (each.klass, each.gist) == wanted), {})
    if order.verb == "discard":
        return {"done": await remove_dead(spool, sizes)}
    said = await requeue_dead(spool, sizes.items())
    kept = Counter(status for status in said if not status[:1].isdigit())
    return {"done": len(said) - kept.total(), "kept": dict(kept)}


async def _mail(spool: Spool, order: Mail) -> dict[str, Any]:
    if (order.id is None) == (order.entries is None):
        raise NotDone("order: an id, or entries")
    if order.entries is not None:
        for each in order.entries:
            if not is_entry(each) or int(each[0]) >= len(spool.priorities):
                raise NotDone(f"entries: not an entry (got {each!r})")
        kept = await unable(spool, order.entries) if order.verb == "unhold" else {}
        done = await apply(spool, order.verb, [each for each in order.entries if each not in kept])
        return {"statuses": dict(done) | ({"kept": len(kept)} if kept else {})}
    entries = await _named(spool, order.id or "", order.tenant)
    kept = await unable(spool, entries) if order.verb == "unhold" else {}
    if len(entries) > 1:
        done = await apply(spool, order.verb, [each for each in entries if each not in kept])
        return {"statuses": dict(done) | ({"kept": len(kept)} if kept else {})}
    if kept:
        again = "a worker like this one would hold it again at once; one that knows it takes it up by itself"
        raise NotDone(f"{kept[entries[0]]}: {again}")
    done = await apply(spool, order.verb, entries)
    return {"entry": entries[0], "status": next(iter(done), "")}


async def _named(spool: Spool, word: str, tenant: str | None) -> list[str]:
    """One entry; or several, of a mail that became one for each of its recipients."""
    try:
        return await standing_for(spool, await locate(spool, word, tenant, deep=True), word, tenant)
    except NotFound as gone:
        try:
            found = await children_named(spool, word, tenant)
        except OfTenants as theirs:
            raise NotDone(str(theirs)) from None
        if not found:
            raise NotDone(str(gone)) from None
        return found
