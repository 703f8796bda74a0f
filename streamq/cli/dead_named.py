"""Which dead letters a command is about: named by any of their ids or by an address, or chosen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from streamq.cli.choice import address_in, known_choice
from streamq.cli.terminal import progress
from streamq.errors import NotFound, SettingsError
from streamq.queue.connection import command
from streamq.queue.letters import DeadLetter, dead_letter, dead_letters
from streamq.queue.look import of_tenants
from streamq.queue.spool import Spool
from streamq.queue.steer import Selector
from streamq.queue.walk import MailView, is_entry

__all__ = ["Meant", "last_named", "letters_of"]


@dataclass(frozen=True, slots=True)
class Meant:
    """Which dead letters a command is about: named by any of their ids, or chosen."""

    verb: str
    ids: tuple[str, ...]
    choice: Selector

    @classmethod
    def of(cls, verb: str, ids: list[str] | None, choice: Selector, everything: bool) -> Meant:
        """Raises `SettingsError` unless they are named one way; a tenant may stand beside ids."""
        parts = [part for part in choice.parts if not (ids and part.startswith("tenant:"))]
        if bool(ids) + bool(parts) + everything != 1:
            raise SettingsError(
                f"dead {verb}: name dead letters by ID, or by --class, --domain, --to, --tenant, --tag, "
                "--priority, or --all of them"
            )
        return cls(verb, tuple(ids or ()), choice)

    async def sizes(self, spool: Spool) -> dict[str, int]:
        """The letters and their bytes. Bodies are not kept: there may be a gigabyte of them. Raises `NotFound`."""
        if self.ids:
            return await _named(spool, self.ids, self.choice.tenant)
        await known_choice(spool, self.choice)
        many = await command(spool.redis, "XLEN", spool.keys.dead)
        found: dict[str, int] = {}
        with progress("looking", many) as looked:
            async for letter in dead_letters(spool):
                looked(1)
                if _fits(spool, letter, self.choice):
                    found[letter.letter] = letter.size
        return found


async def letters_of(spool: Spool, choice: Selector, *, newest: bool = False) -> AsyncIterator[DeadLetter]:
    """Those that fit, oldest first; or the newest."""
    async for letter in dead_letters(spool, newest=newest):
        if _fits(spool, letter, choice):
            yield letter


def _fits(spool: Spool, letter: DeadLetter, choice: Selector) -> bool:
    """As of a live mail: its class is what it died of."""
    if not choice.parts:
        return True
    entry = letter.text("dead_entry")
    if not is_entry(entry):  # somebody else's hand; what its fields say still counts
        entry = f"0{letter.letter}"
    priority = spool.priorities[int(entry[0])] if int(entry[0]) < len(spool.priorities) else ""
    notes = {"class": letter.text("dead_class")}
    return choice.fits(MailView(entry, priority, "dead", letter.mail, notes))


async def _named(spool: Spool, ids: Sequence[str], tenant: str | None) -> dict[str, int]:
    """Letters and their bytes, by any of their ids. Raises `NotFound`; `OfTenants` where there are a tenant's alone,
    and none was said."""
    letters: dict[str, int] = {}
    missing = set(ids)
    for id_ in ids:
        found = await dead_letter(spool, id_)
        if found is not None:
            letters[found.letter] = found.size
            missing.discard(id_)
    theirs: dict[str, set[str]] = {}
    if missing:  # entries, producers' ids and addresses have no index here: read them all
        named = Named(missing, tenant)
        async for letter in dead_letters(spool):
            if hit := named.of(spool, letter):
                letters[letter.letter] = letter.size
                missing -= hit
            for word in named.of(spool, letter, anybodys=True):
                theirs.setdefault(word, set()).add(letter.text("tenant"))
    if missing:
        raise _none_of(sorted(missing), theirs, tenant)
    return letters


class Named:
    """Words that name dead letters: ids of any kind, those of the mail for several that they came of, and addresses.
    A producer's id is that of a `tenant`, None: of nobody; an address is anybody's, but where a tenant is said."""

    def __init__(self, words: Iterable[str], tenant: str | None) -> None:
        self.words = frozenset(words) - {""}
        self.tenant = tenant
        known = ((word, address_in(word)) for word in self.words)
        self.people = [(word, Selector(to=who, tenant=tenant)) for word, who in known if who is not None]

    def of(self, spool: Spool, letter: DeadLetter, *, anybodys: bool = False) -> set[str]:
        """Those that name it. `anybodys`: whosever their ids are."""
        ids = {letter.letter, letter.text("dead_entry")}
        stamp = letter.text("dead_stamp")
        ids |= {stamp.partition("#")[0]} if stamp else set()
        if anybodys or letter.text("tenant") == (self.tenant or ""):
            ids |= {letter.text("id")} | ({letter.text("id").rpartition("#")[0]} if stamp else set())
        return {*(self.words & ids), *(word for word, choice in self.people if _fits(spool, letter, choice))}


def _none_of(words: Sequence[str], theirs: Mapping[str, Collection[str]], tenant: str | None) -> NotFound:
    """What to say where no dead letter has any of these names. `theirs`: of whom there are some, by name."""
    for word in words:
        if tenant is None and theirs.get(word):
            return of_tenants(word, dict.fromkeys(sorted(theirs[word]), ""), "dead letter")
    said = ", ".join(repr(word[:300]) for word in words)
    known = "id, or recipient," if any(address_in(word) for word in words) else "id"
    whose = f" of tenant {tenant!r}" if tenant is not None else ""
    return NotFound(f"no dead letter{whose} has the {known} {said}")


async def last_named(spool: Spool, id_: str, tenant: str | None) -> DeadLetter:
    """Raises `NotFound`; `OfTenants` where the id is that of several tenants, and none was said."""
    found = await dead_letter(spool, id_)
    if found is not None:
        return found
    named = Named((id_,), tenant)
    theirs: dict[str, DeadLetter] = {}
    async for letter in dead_letters(spool):
        if named.of(spool, letter):
            found = letter
        elif named.of(spool, letter, anybodys=True):
            theirs[letter.text("tenant")] = letter
    if found is None and tenant is None and len(theirs) == 1:  # who only looks
        return next(iter(theirs.values()))
    if found is None:
        raise _none_of([id_], {id_: set(theirs)}, tenant)
    return found
