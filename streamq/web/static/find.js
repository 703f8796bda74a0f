// Find: one mail's story, what a mail to several recipients became, the mails to an address; and what may be done to them.
import { $, button, count, el, plural, say } from "./dom.js";
import * as talk from "./talk.js";
import { ask, tell } from "./dialog.js";
import { showStory } from "./story.js";
import { leave, mailCard, showAddressed, showEnded } from "./address.js";

// Of the page: {canAct(), done(order, words), deadFound(letter, name), live()}.
let page;

const VERBS = { retry: "Retry now", hold: "Hold", unhold: "Release", cancel: "Cancel", bounce: "Bounce" };
const WAITS = (mail) => mail.state === "parked" || mail.state === "scheduled";

function verbs(mail) {
  if (!page.canAct() || mail.state === "gone") return [];
  return Object.entries(VERBS).filter(([verb]) => (verb === "unhold") === (mail.state === "held") || verb === "cancel" || verb === "bounce")
    .filter(([verb]) => verb !== "retry" || WAITS(mail));
}

const statuses = (said) => (said.statuses ? Object.entries(said.statuses).map(([status, many]) => `${count(many)} ${status}`).join(", ") : said.status);

// A retry breaks nothing, and goes through the limits: of one mail nobody is asked. All else is.
function steer(verb, mail, name, then) {
  const act = async () => {
    await page.done({ verb, id: mail.entry }, (said) => `${name}: ${statuses(said)}`);
    await then();
  };
  if (verb === "retry") return act().catch((wrong) => tell(wrong.message));
  return ask(`${VERBS[verb]}: ${name}`, "", [], VERBS[verb], act);
}

const look = (id, tenant) => talk.look(`/api/mail?${new URLSearchParams({ id, tenant })}`);
const renew = async (mail) => (await look(mail.entry, "").catch(() => ({}))).mail || { ...mail, state: "gone" };

const acts = (mail, then) => {
  const name = mail.fields.id || mail.entry;
  return [button("Story", () => find(mail.entry, ""), `Story of ${name}`), ...verbs(mail).map(([verb, label]) => button(label, () => steer(verb, mail, name, then), `${label}: ${name}`))];
};

async function findAddress(word, tenant) {
  const retry = (mails, then) => {
    const ready = mails.filter(WAITS);
    return page.canAct() && ready.length > 1 ? [button(`Retry all ${count(ready.length)} now`, () => ask(`Retry ${plural(ready.length, "mail")}`, `To ${word}, through the limits.`, [], "Retry", async () => {
      await page.done({ verb: "retry", entries: ready.map((mail) => mail.entry) }, statuses);
      await then();
    }))] : [];
  };
  return showAddressed($("story"), {
    ask: (from) => talk.look(`/api/address?${new URLSearchParams({ address: word, tenant, from })}`),
    live: page.live, renew, all: retry, dead: page.deadFound, acts,
  });
}

// What a mail to several recipients became, the first of it; a verb here means all of it.
function showFamily(place, family, name, again) {
  const many = family.more ? `more than ${plural(family.mails.length, "live mail")}, the first of them here` : plural(family.mails.length, "live mail");
  const all = (verb, label) => button(`${label} all`, () => ask(`${VERBS[verb]}: ${name}`, `All that became of it: one mail for each of its ${plural(family.recipients, "recipient")}.`, [], VERBS[verb], async () => {
    await page.done({ verb, id: family.entry }, (said) => `${name}: ${statuses(said)}`);
    await again();
  }));
  const ended = el("div", {});
  place.append(
    el("div", { class: "card", id: "story-family" }, el("p", { class: "big" }, `It became one mail for each of its ${plural(family.recipients, "recipient")}: ${many}`),
      page.canAct() && family.mails.length ? el("p", { class: "buttons" }, all("retry", "Retry"), all("hold", "Hold"), all("unhold", "Release"), all("cancel", "Cancel")) : ""),
    el("div", { id: "found" }, ...family.mails.map((mail) => mailCard(mail, acts, renew))), ended);
  showEnded(ended, family.ended, page.deadFound);
}

export async function find(id, tenant) {
  leave();
  $("story-section").hidden = false;
  say($("story-title"), id.includes("@") ? `Mail to ${id}` : `Mail ${id}`);
  $("story").replaceChildren(el("p", { class: "note" }, "looking …"));
  $("story-title").focus();
  try {
    const name = id.includes("@") ? await findAddress(id, tenant).catch((wrong) => {
      if (wrong.status === 422) return id; // no address: it may be an id
      throw wrong;
    }) : id;
    if (!name) return;
    say($("story-title"), `Mail ${id}`);
    const found = await look(name, name === id ? tenant : "");
    const again = () => find(id, tenant);
    showStory($("story"), found, {
      mail: (mail) => verbs(mail).map(([verb, label]) => button(label, () => steer(verb, mail, id, again))),
      dead: (letter) => page.deadFound(letter, id),
      family: (place) => showFamily(place, found.family, id, again),
    });
  } catch (wrong) {
    $("story").replaceChildren(el("p", { class: "error", id: "story-error" }, wrong.message));
  }
}

export function listen(known) {
  page = known;
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    find($("search-id").value.trim(), $("search-tenant").value.trim());
  });
}
