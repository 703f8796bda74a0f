"""An operator's order: a verb, the mails that it is for, named or chosen, and what is said of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field

import typer

from streamq.cli.addressed import how_it_died, of_tenant, shell_word
from streamq.cli.app import open_queue, run_async
from streamq.cli.choice import address_in, known_choice
from streamq.cli.terminal import ask, clip, console, emit, note, progress
from streamq.errors import NotFound, SettingsError
from streamq.queue.children import children_named, family_seen, standing_for
from streamq.queue.connection import command
from streamq.queue.events import DEAD
from streamq.queue.look import locate, now_ms, of_tenants, owner, status
from streamq.queue.search import letters_to, sought
from streamq.queue.spool import Spool
from streamq.queue.steer import Selector, apply, has_rule, id_rule, intended, select, set_rule, unable, unset_rule
from streamq.queue.walk import STATES, MailView, is_entry
from streamq.queue.why import ended_somewhere, why
from streamq.queue.wording import plural, shown_ms, waits_words

__all__ = ["Order"]

DONE = {"hold": "held", "cancel": "cancelled"}  # what becomes of a mail that was not seen yet
# Which states a choice is looked for in. What waits is held by the standing rule, when it is admitted.
SWEPT = {
    "retry": ("parked", "scheduled"),
    "hold": ("waiting", "leased", "parked", "scheduled"),
    "unhold": ("held",),
    "cancel": STATES,
    "bounce": STATES,
}
ENTRY_DIGITS = 14  # a priority's and a time's of this century
SOUGHT_MOST = 3  # words of one command for each of which all live mails are looked at
TOLD = ("hold", "cancel", "bounce")  # verbs that write an event for each mail
KEPT_SHOWN = 20
LETTERS_TOLD = 100
CLOSED_LOOKED = 10  # named mails of which it is said that their way is closed


@dataclass(slots=True)
class Order:
    """One command's verb and the mails it names: by ids and addresses, or by a choice. `unseen`: an id that no mail has
    had becomes a rule, and nothing is looked for."""

    verb: str
    ids: list[str]
    choice: Selector
    everything: bool
    dry_run: bool
    yes: bool
    json: bool
    after_ms: int | None = None
    standing: bool = False
    unseen: bool = False
    rules: dict[str, str] = field(default_factory=dict)  # what was asked for ids that were not seen yet → what became
    searches: int = 0  # of all live mails
    kept: dict[str, str] = field(default_factory=dict)  # entries that stay held → why
    parents: dict[str, str] = field(default_factory=dict)  # live mails that become one for each recipient → their names
    forgets: str = ""  # that its events push others out, "" where they are few

    def __post_init__(self) -> None:
        flags = [part.partition(":")[0] for part in self.choice.parts]
        if self.ids:
            if self.everything or set(flags) - {"tenant"}:
                raise SettingsError(f"{self.verb}: either IDs or a choice (--domain, --all, …), not both")
        elif self.everything == bool(flags):
            raise SettingsError(
                f"{self.verb}: name mails by ID, or by --domain, --to, --priority, --tenant, --tag, --class; "
                "or --all of them"
            )
        if self.unseen and not self.ids:
            raise SettingsError(f"{self.verb}: --unseen is for IDs")
        if self.verb == "hold" and not self.ids and self.choice.klass is None and self.choice.to is None:
            self.standing = True
        if self.standing and (self.ids or self.choice.rule is None):
            got = ", ".join(f"--{flag}" for flag in flags) or "IDs"
            raise SettingsError(
                f"{self.verb}: a standing rule takes one of --domain, --priority, --tenant, --tag (got {got})"
            )

    def run(self) -> None:
        if not run_async(self._carried_out):
            raise typer.Exit(1)

    async def _carried_out(self) -> bool:
        async with open_queue() as spool:
            await known_choice(spool, self.choice)
            if self.after_ms is not None and self.after_ms > spool.settings.max_age:
                most = shown_ms(spool.settings.max_age)
                raise SettingsError(f"{self.verb}: --in: longer than a mail may get old (STREAMQ_MAX_AGE, {most})")
            return await (self._by_name(spool) if self.ids else self._by_choice(spool))

    # -- by id, or address -----------------------------------------------------------------------------------------

    async def _by_name(self, spool: Spool) -> bool:
        entries: list[str] = []
        unseen: list[str] = []
        for text in dict.fromkeys(self.ids):
            try:
                entries += await self._known(spool, text)
            except NotFound as gone:
                if await self._is_rule(spool, text):
                    unseen.append(text)
                elif found := await self._sought(spool, text, gone):
                    entries += found
                else:
                    unseen.append(text)
        entries = list(dict.fromkeys(entries))
        many = len(entries) + len(unseen)
        await self._look_at_events(spool, many)
        if not self.dry_run and many > 1 and not self.yes:
            ask(f"{self.verb} {plural(many, 'mail')}{f' ({self.forgets})' if self.forgets else ''}?")
        for text in unseen:
            entries += await self._rule(spool, text)
        done = await self._apply(spool, entries)
        if late := await self._late(spool, set(entries)):
            done += await self._apply(spool, late)
            entries += late
        self._say(done, len(entries))
        if self.verb == "retry" and done["scheduled"] and not self.json:
            await self._note_closed(spool, entries)
        return not done["missing"] and not self.kept

    async def _note_closed(self, spool: Spool, entries: list[str]) -> None:
        """That it goes now is not so where its way is closed."""
        for entry in entries[:CLOSED_LOOKED]:
            with contextlib.suppress(NotFound):
                found = await why(spool, entry)
                if found.gauge is not None and not found.gauge.open:
                    note(f"{clip(found.view.text('id') or entry, 100)}: waits {clip(waits_words(found), 400)}")

    async def _known(self, spool: Spool, text: str) -> list[str]:
        """The entry of a word that was looked up by workers; of a mail to several recipients those that it became.
        Raises `NotFound`."""
        tenant = self.choice.tenant
        entry = await (locate(spool, text, tenant) if address_in(text) is None else owner(spool, text, tenant))
        if not entry and (family := await family_seen(spool, [text], tenant)):
            entry = family.parent
        if not entry:
            raise NotFound(f"no live mail has the id {text[:300]!r}")
        found = await standing_for(spool, entry, text, tenant)
        if len(found) > 1 and found[0] == entry:
            self.parents[entry] = text
        return found

    async def _late(self, spool: Spool, known: set[str]) -> list[str]:
        """What such a mail became between the look and its own order, which stopped it."""
        late: list[str] = []
        if not self.dry_run:
            for entry, text in self.parents.items():
                late += [each for each in await standing_for(spool, entry, text) if each not in known and each != entry]
        return late

    async def _is_rule(self, spool: Spool, text: str) -> bool:
        """Whether it was asked for plainly, or is to be forgotten."""
        if self.verb == "unhold":
            return await has_rule(spool, id_rule(text, self.choice.tenant))
        return self.unseen

    async def _sought(self, spool: Spool, text: str, gone: NotFound) -> list[str]:
        """The mails that have this id, though nobody has read them yet, or are to this address; [] for an id that may
        come. What has the form of an entry was seen, and is gone. Raises `NotFound`."""
        if is_entry(text) and len(text.partition("-")[0]) >= ENTRY_DIGITS:
            if children := await children_named(spool, text, self.choice.tenant):
                return children
            raise await self._dead(spool, text) or gone
        who = address_in(text)
        self.searches += 1
        if who is None and self.searches > SOUGHT_MOST and self.verb in DONE:
            return []
        with progress("looking", (await status(spool)).live, quiet=self.json) as looked:
            found = await sought(spool, who, text, looked)
        if own := found.of(self.choice.tenant):
            return [own]
        if found.named and self.choice.tenant is None:
            raise of_tenants(text, {tenant: entry for entry, tenant in found.named.items()})
        if who is None:
            if children := await children_named(spool, text, self.choice.tenant):
                return children
            if self.verb not in DONE:
                raise await self._dead(spool, text) or gone
            end = await ended_somewhere(spool, [text], self.choice.tenant)
            if end is not None:
                how = end.kind.removeprefix("email.")
                raise NotFound(
                    f"the mail {text[:300]!r} has ended ({how}); --unseen: a rule for another one of that id"
                )
            return []
        fit = [view.entry for view in found.views if self._is_meant(view)]
        if fit or (fit := await children_named(spool, text, self.choice.tenant)):
            return fit
        if self.verb == "retry":
            letters = [end async for end in letters_to(spool, who, LETTERS_TOLD, self.choice.tenant)]
            if letters:
                many = f"{len(letters)}{' or more' if len(letters) == LETTERS_TOLD else ''}"
                raise NotFound(
                    f"no live mail is to {who.spec}, but {many} dead letter{'s are' if len(letters) > 1 else ' is'}: "
                    f"`streamq dead requeue {who.spec}` sends {'them' if len(letters) > 1 else 'it'} again"
                )
        held = " that is held" if self.verb == "unhold" else ""
        rule = f"; --unseen: a rule for that id, {DONE[self.verb]} when it comes" if self.verb in DONE else ""
        raise NotFound(f"no live mail{held} is to {who.spec}, and none has {text[:300]!r} as its id{rule}")

    async def _dead(self, spool: Spool, text: str) -> NotFound | None:
        """What to say of a name whose mail is a dead letter."""
        end = await ended_somewhere(spool, [text], self.choice.tenant) if self.verb == "retry" else None
        if end is None or end.kind not in DEAD:
            return None
        name = shell_word(text) + of_tenant(end.data.get("tenant"))
        return NotFound(
            f"the mail {text[:300]!r} is dead{how_it_died(end)}: `streamq dead requeue {name}` sends it again, "
            "while its letter is kept"
        )

    def _is_meant(self, view: MailView) -> bool:
        if not self.choice.fits(view):
            return False
        return self.verb != "unhold" or view.state == "held" or view.intent == "hold"

    async def _rule(self, spool: Spool, text: str) -> list[str]:
        """For an id that was not seen yet. Its entry, if it came between the look and the rule: admission, which
        carries rules out, had looked at it by then."""
        name = id_rule(text, self.choice.tenant)
        if self.verb == "unhold":
            said = f"not seen yet; what was asked for it {'would be' if self.dry_run else 'is'} forgotten"
            if not self.dry_run:
                await unset_rule(spool, name)
        else:
            if self.dry_run:
                said = f"nothing in the queue has this id now: a rule would stand, {DONE[self.verb]} when it comes"
            else:
                said = (
                    f"nothing in the queue has this id now: a rule stands, {DONE[self.verb]} when it comes; mistyped? "
                    f"`streamq unhold {shell_word(text)}` drops it"
                )
            if not self.dry_run:
                await set_rule(spool, name, self.verb)
                with contextlib.suppress(NotFound):
                    entry = await locate(spool, text, self.choice.tenant)
                    await unset_rule(spool, name)
                    return [entry]
        self.rules[text] = said
        return []

    # -- by a choice -----------------------------------------------------------------------------------------------

    async def _by_choice(self, spool: Spool) -> bool:
        rule = self.choice.rule
        sets, ends = self.standing and rule is not None, False
        if self.verb == "unhold" and rule is not None:
            ends = await has_rule(spool, rule)
        if self.dry_run or not self.yes:
            found = await self._found(spool)
            if self.dry_run:
                if rule is not None and (sets or ends):
                    self.rules[rule] = "would be a standing rule" if sets else "would be no standing rule any more"
                done = await self._apply(spool, [entry for entry, state in found.items() if state == "held"])
                self._say(done, len(found))
                return True
            comes = ", and what comes" if self.standing and self.verb != "hold" else ""
            if len(found) > 1 or comes:
                forgets = f" ({self.forgets})" if self.forgets else ""
                ask(f"{self.verb} {plural(len(found), 'mail')}{comes}{forgets}?")
        if rule is not None and sets:
            await set_rule(spool, rule, self.verb)  # first, so that none slips between rule and sweep
            self.rules[rule] = "a standing rule from now on, until `streamq unhold` with the same words"
        if rule is not None and ends and await unset_rule(spool, rule):
            self.rules[rule] = "no standing rule any more"
        await self._sweep(spool)
        return True

    @property
    def _swept(self) -> tuple[str, ...]:
        """To an address there are few, and each is told of: what a verb does nothing to says where it is."""
        return STATES if self.choice.to is not None and self.verb != "unhold" else SWEPT[self.verb]

    async def _found(self, spool: Spool) -> dict[str, str]:
        """Entries and their states, by visiting all that may be meant: a million take a minute, so it is shown."""
        now = await status(spool)
        many = now.live if self.choice.to is not None else sum(now.sum(state) for state in self._swept)
        found: dict[str, str] = {}
        with progress("looking", many, quiet=self.json) as looked:
            choice = self.choice.among(*self._swept)
            async for view in select(spool, choice, sweep=True, visited=looked):
                found[view.entry] = view.state
        if self.verb == "unhold":
            found |= {view.entry: view.state async for view in intended(spool, "hold") if self.choice.fits(view)}
        await self._look_at_events(spool, len(found))
        return found

    async def _look_at_events(self, spool: Spool, many: int) -> None:
        """`log` and `why` know what became of mails by a stream that is bounded."""
        if self.verb in TOLD:
            kept = int(await command(spool.redis, "HGET", spool.keys.meta, "events_kept") or 0)
            if 2 * many > kept > 0:
                self.forgets = (
                    f"their {plural(many, 'event')} push out the history of older mails: about {kept:,} are kept, "
                    "STREAMQ_EVENTS_KEPT"
                )

    async def _sweep(self, spool: Spool) -> None:
        states = await self._found(spool)
        by_rule = self.verb == "hold" and self.standing
        entries = [entry for entry, state in states.items() if not by_rule or state != "waiting"]
        done = await self._apply(spool, entries)
        if len(states) > len(entries):
            done["by rule"] = len(states) - len(entries)  # they wait: held when they are read
        self._say(done, len(states))

    # -- what is done, and said ------------------------------------------------------------------------------------

    async def _apply(self, spool: Spool, entries: list[str]) -> Counter[str]:
        """Nothing in a dry run, but for what would be kept."""
        kept = await unable(spool, entries) if self.verb == "unhold" else {}
        entries = [entry for entry in entries if entry not in kept]
        self.kept |= kept
        done = Counter[str]()
        if not self.dry_run:
            at_ms = None if self.after_ms is None else await now_ms(spool) + self.after_ms
            with progress(self.verb, len(entries), quiet=self.json) as moved:
                done = await apply(spool, self.verb, entries, at_ms=at_ms, progress=moved)
        if kept:
            done["kept"] = len(kept)
        return done

    def _say(self, done: Counter[str], many: int) -> None:
        if self.json:
            known = {"verb": self.verb, "mails": many, "dry_run": self.dry_run, "statuses": done, "rules": self.rules}
            return emit(known | ({"kept": self.kept} if self.kept else {}))
        for name, said in self.rules.items():
            console.print(f"{clip(name, 300)}: {said}", soft_wrap=True)
        if self.dry_run:
            console.print(f"{self.verb}: {plural(many, 'mail')} (dry run: nothing was changed)")
        else:
            words = ", ".join(f"{count:,} {status}" for status, count in done.most_common())
            if words or not self.rules:
                console.print(f"{self.verb}: {words or 'nothing to do'}")
        self._notes(done)
        return None

    def _notes(self, done: Counter[str]) -> None:
        if self.forgets:
            note(self.forgets)
        if done["intended"]:
            note("intended: in delivery, or not read yet; carried out unless the attempt sends it")
        if done["missing"]:
            again = "; `streamq dead requeue` with its id sends a dead one again" if self.verb == "retry" else ""
            note(f"missing: has ended already; its events, or `streamq dead show`, may know how{again}")
        if self.verb == "retry" and done["held"]:
            note("held: `streamq unhold` with the same words lets it go; `--in 0s`: now")
        if self.verb == "retry" and done["parked"]:
            note("parked: goes when its limit has a slot, or its way is open; `streamq why` says which it waits for")
        if not self.kept:
            return
        for entry, reason in list(self.kept.items())[:KEPT_SHOWN]:
            note(f"kept: {entry}: {clip(reason, 300)}")
        note(
            "kept: a worker of this version and these settings would hold it again at once; one that knows what it "
            "says takes it up by itself. To send it without: `streamq bounce ID`, then `streamq dead requeue ID --set "
            "FIELD=`"
        )
