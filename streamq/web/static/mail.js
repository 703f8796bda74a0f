// One mail: who, its files, and five ways to look at it. Its html is a document of its own in a frame without rights.
import { el, say, brief, count, plural, bytes, clock } from "./dom.js";
import { pairs } from "./story.js";

const TEXT_MOST = 200000; // characters that a browser lays out without a thought
const REMOTE = /(?:(?:src|srcset|background|poster)\s*=|url\()\s*["']?\s*(?:https?:|[\/\\]{2})/i; // `//host/`: as the page came

// What turns text around, or is not to be seen, is shown as what it is: a sign in the wrong place.
export const plain = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, "\ufffd");
export const people = (known) => known.map((each) => plain(each.name || each.address)).join(", ");
const whole = (known) => known.map((each) => plain(each.name && each.address ? `${each.name} <${each.address}>` : each.name || each.address)).join(", ");
const options = (known) => Object.entries(known).map(([name, value]) => (value === null ? name : `${name}=${value}`)).join(" ");

function shortened(text) {
  return text.length > TEXT_MOST ? `${text.slice(0, TEXT_MOST)}\n… and ${count(text.length - TEXT_MOST)} characters more` : text;
}

function frame(mail) {
  const made = el("iframe", { title: "The mail's html", sandbox: "allow-popups allow-popups-to-escape-sandbox", referrerpolicy: "no-referrer" });
  made.src = mail.html_url;
  if (!REMOTE.test(mail.html)) return el("div", {}, made);
  const load = el("button", { type: "button", id: "images", onclick: () => { made.src = `${mail.html_url}&images=1`; load.remove(); } }, "Load images from elsewhere");
  return el("div", {}, el("p", { class: "tools" }, load, el("span", { class: "note" }, "Whoever sent it learns that it was opened.")), made);
}

function headers(mail) {
  const list = el("dl", { class: "pairs card" });
  for (const [name, value] of mail.headers) list.append(el("dt", {}, plain(name)), el("dd", { dir: "auto" }, plain(value)));
  return list;
}

function envelope(mail) {
  const known = mail.envelope;
  if (!known) return el("p", { class: "note" }, "It was in the Maildir before this sink ran: nobody knows its envelope.");
  const list = pairs({
    "MAIL FROM": `<${plain(known.from)}> ${plain(options(known.parameters))}`,
    EHLO: plain(known.helo), client: known.peer, TLS: known.tls ? "yes" : "no", user: plain(known.user),
    "8BITMIME": known.eight_bit ? "yes" : "no", SMTPUTF8: known.smtputf8 ? "yes" : "no",
  });
  list.classList.add("card");
  for (const each of known.to.slice(0, 200)) list.append(el("dt", {}, "RCPT TO"), el("dd", {}, `<${plain(each.address)}> ${plain(options(each.parameters))}`));
  if (known.to.length > 200) list.append(el("dt", {}, ""), el("dd", {}, `and ${plural(known.to.length - 200, "recipient")} more`));
  return list;
}

function source(ask) {
  const text = el("pre", { class: "body", tabindex: 0 }, "…");
  ask().then((found) => say(text, plain(shortened(found))), (wrong) => say(text, wrong.message));
  return text;
}

const words = (text) => el("pre", { class: "body words", tabindex: 0, dir: "auto" }, plain(shortened(text)));

// Tabs as ARIA has them: one is in the tab order, arrows go to the others.
function tabs(views) {
  const panel = el("div", { id: "panel", role: "tabpanel" });
  const list = el("div", { class: "tabs", role: "tablist", "aria-label": "The mail as" });
  const show = (button, view) => {
    for (const each of list.children) {
      each.setAttribute("aria-selected", String(each === button));
      each.tabIndex = each === button ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", button.id);
    panel.replaceChildren(view());
  };
  for (const [name, view] of Object.entries(views)) {
    const button = el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", onclick: () => show(button, view) }, name);
    list.append(button);
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = [...list.children];
    const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
    next.click();
    next.focus();
  });
  const [first] = Object.values(views);
  show(list.firstChild, first);
  return [list, panel];
}

function files(mail) {
  if (!mail.attachments.length) return null;
  const list = mail.attachments.map((each) => el("li", {}, el("a", { href: each.url, download: true, dir: "auto" }, plain(each.filename) || `part ${each.number}`), ` ${plain(each.content_type)}, ${bytes(each.size)}`));
  return el("ul", { class: "files", id: "files", "aria-label": "Attachments" }, ...list);
}

// Whom the envelope names, where that is not what To and Cc say.
function sentTo(mail) {
  const said = new Set([...mail.to, ...mail.cc].map((each) => each.address.toLowerCase()));
  if (mail.envelope_to.length === said.size && mail.envelope_to.every((each) => said.has(each.toLowerCase()))) return "";
  return mail.envelope_to.map(plain).join(", ") + (mail.envelope_to_left ? ` and ${count(mail.envelope_to_left)} more` : "");
}

// acts: {remove, unread, source}
export function showMail(place, mail, acts) {
  const views = {
    ...(mail.html_url ? { html: () => frame(mail) } : {}),
    ...(mail.text || !mail.html_url ? { text: () => (mail.text ? words(mail.text) : el("p", { class: "note" }, "It has no text.")) } : {}),
    headers: () => headers(mail), source: () => source(acts.source), envelope: () => envelope(mail),
  };
  const subject = plain(mail.subject);
  place.replaceChildren(
    el("p", { class: "tools" },
      el("a", { class: "button", href: mail.raw_url, download: true, id: "raw" }, "Download .eml"),
      el("button", { type: "button", onclick: acts.unread }, "Mark unread"),
      el("button", { type: "button", id: "delete", onclick: acts.remove }, "Delete")),
    pairs({ subject: brief(subject) === subject ? "" : subject, from: whole(mail.from), to: whole(mail.to), cc: whole(mail.cc), "sent to": sentTo(mail), came: clock(Date.parse(mail.at)), size: bytes(mail.size) }),
    ...(mail.note ? [el("p", { class: "warned", id: "mail-note" }, mail.note)] : []),
    ...[files(mail)].filter(Boolean),
    ...tabs(views),
  );
}
