// One mail: where it is, why it waits, and all that was said of it; one dead letter.
import { el, clock, lasts, count, bytes, foldable, plural } from "./dom.js";

export function pairs(known) {
  const list = el("dl", { class: "pairs" });
  for (const [name, value] of Object.entries(known)) {
    if (value === null || value === undefined || value === "") continue;
    list.append(el("dt", {}, name), el("dd", {}, foldable(typeof value === "object" ? JSON.stringify(value) : String(value))));
  }
  return list;
}

// A reply as the server said it: its code stands beside it.
export const said = (code, reply) => (code && reply && !reply.startsWith(String(code)) ? `${code} ${reply}` : reply);

export const within = (ms) => (ms === null ? null : ms <= 0 ? "now" : `in ${lasts(ms)}`);

function mailCard(mail, acts) {
  const ahead = (mail.better || 0) + (mail.older || 0);
  const card = el("div", { class: "card", id: "story-mail" }, el("p", { class: "big" }, `It is ${mail.state}: ${mail.words}`));
  if (acts.length) card.append(el("p", { class: "buttons" }, ...acts));
  card.append(pairs({
    entry: mail.entry, priority: mail.priority, site: mail.site, route: mail.route, age: lasts(mail.age_ms),
    since: mail.since, ahead: mail.better === null && mail.older === null ? null : plural(ahead, "mail") + (mail.more ? ", or more" : ""),
    next: within(mail.next_ms), expected: within(mail.expected_ms), worker: mail.holder,
    attempts: mail.notes.attempts, "last reply": said(mail.notes.code, mail.notes.reply), ...mail.fields,
    bodies: Object.entries(mail.bodies).map(([name, many]) => `${name} ${bytes(many)}`).join(", "),
  }));
  return card;
}

export function eventLine(each, whose = "") {
  const data = each.data;
  const reply = said(data.code, data.reply) || data.reason || "";
  const how = [data.class, data.route && `by ${data.route}`, data.peer, data.attempt && `attempt ${data.attempt}`,
    data.next_attempt_at && `next ${clock(data.next_attempt_at)}`, data.duration_ms !== undefined && `took ${lasts(data.duration_ms)}`].filter(Boolean).join(" · ");
  return el("li", {}, data.at ? el("time", { datetime: new Date(data.at).toISOString() }, clock(data.at)) : "", el("strong", {}, each.kind.replace("email.", "")), whose ? ` ${whose}` : "",
    how ? ` ${how}` : "", reply ? el("div", {}, reply) : "");
}

// `show`: {mail(mail) and dead(letter): buttons, and the place where it is shown; family(place): what it became}.
export function showStory(place, found, show) {
  place.replaceChildren();
  if (found.mail) place.append(mailCard(found.mail, show.mail(found.mail)));
  if (found.family) show.family(place);
  if (!found.mail && !found.family) {
    const end = found.events[found.events.length - 1] || found.last;
    place.append(el("div", { class: "card", id: "story-mail" }, el("p", { class: "big" }, `It is not in the queue any more: ${end.kind.replace("email.", "")}`),
      ...(found.letter ? show.dead(found.letter) : []),
      pairs({ class: end.data.class, reason: end.data.reason, reply: said(end.data.code, end.data.reply), to: end.data.rcpt })));
  }
  if (found.events.length) {
    place.append(el("h3", {}, found.more ? `Its last ${count(found.events.length)} events` : "Its events"), el("ol", { class: "events", id: "story-events" }, ...found.events.map((each) => eventLine(each))));
  }
}

export function showLetter(place, letter, acts) {
  place.replaceChildren(el("div", { class: "card", id: "letter-card" }, el("p", { class: "big" }, `Dead letter ${letter.letter}`),
    el("p", { class: "buttons" }, ...acts), pairs({ ...letter.fields, bodies: Object.entries(letter.bodies).map(([name, many]) => `${name} ${bytes(many)}`).join(", ") })));
}
