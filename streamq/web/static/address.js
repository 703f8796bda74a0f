// The mails to an address: looked for some seconds a call, shown as they come, until all mails were looked at.
import { el, count, lasts, plural, say } from "./dom.js";
import { eventLine, pairs, said, within } from "./story.js";

const ENOUGH = 50; // found: more come when somebody asks for them
let latest = 0;
export const leave = () => { latest += 1; };

export function mailCard(mail, acts, renew) {
  const made = el("div", { class: "card found", "data-entry": mail.entry }, el("p", { class: "big" }, `${mail.fields.id || mail.entry} is ${mail.state}: ${mail.words}`));
  made.append(el("p", { class: "buttons" }, ...acts(mail, async () => made.replaceWith(mailCard(await renew(mail), acts, renew)))));
  made.append(pairs({ entry: mail.entry, tenant: mail.fields.tenant, to: mail.fields.envelope_to, subject: mail.fields.subject, age: lasts(mail.age_ms), since: mail.since, next: within(mail.next_ms), expected: mail.expected_ms === mail.next_ms ? null : within(mail.expected_ms), "last reply": said(mail.notes.code, mail.notes.reply) }));
  return made;
}

// `ask(from)` brings a part; `live()` says how many there are; `renew(mail)` looks at one again; `acts(mail, done)` makes a
// card's buttons, `all(mails, done)` those of all, `dead(letter, name)` those of a dead letter, and its place. Gives the
// entry where the word was an id after all.
export async function showAddressed(place, { ask, live, renew, acts, all, dead }) {
  const mine = ++latest;
  const note = el("p", { class: "note", id: "found-note", role: "status" }, "looking …");
  const buttons = el("p", { class: "buttons", id: "found-acts" });
  const cards = el("div", { id: "found" });
  const ended = el("div", {});
  place.replaceChildren(note, buttons, cards, ended);
  const found = [];
  let looked = 0;
  let from = "";
  let stopped = false;
  const anew = async () => cards.replaceChildren(...(await Promise.all(found.map(renew))).map((mail) => mailCard(mail, acts, renew)));
  const look = async () => {
    const enough = found.length + ENOUGH;
    stopped = false;
    do {
      const part = await ask(from).catch((wrong) => {
        if (mine === latest) throw wrong;
      });
      if (mine !== latest) return null; // something else is looked for by now
      if (part.named.length) return part.named[0];
      if (!from) showEnded(ended, part.ended, dead);
      from = part.next;
      looked += part.looked;
      found.push(...part.mails);
      cards.append(...part.mails.map((mail) => mailCard(mail, acts, renew)));
      const far = from ? `looked at ${count(looked)} of ${count(Math.max(looked, live()))}` : `all ${count(looked)} looked at`;
      say(note, `${plural(found.length, "live mail")} to ${part.address}; ${far}`);
      const more = from && (stopped || found.length >= enough);
      const on = from ? el("button", { type: "button", id: "found-on", onclick: () => { if (more) look().catch((wrong) => say(note, wrong.message)); else stopped = true; } }, more ? "Look on" : "Stop") : "";
      buttons.replaceChildren(...[...(found.length > 1 ? all(found, anew) : []), on].filter(Boolean));
    } while (from && !stopped && found.length < enough);
    return null;
  };
  return look();
}

export function showEnded(place, ended, dead) {
  place.replaceChildren(el("h3", {}, ended.length ? "Ended" : "Nothing is kept of one that has ended"));
  if (ended.length) place.append(el("ol", { class: "events", id: "found-ended" }, ...ended.map((each) => {
    const line = eventLine(each, each.data.id);
    if (each.data.letter) line.append(...dead(each.data.letter, each.data.id));
    return line;
  })));
}
