// The inbox: a page of the list, kept up to date by the stream, and one mail beside it. The address says which: #<id>.
import { $, el, say, brief, count, plural, bytes, clock } from "./dom.js";
import * as talk from "./talk.js";
import { ask, tell } from "./dialog.js";
import { showMail, plain, people } from "./mail.js";

const PAGE = 50;
let box = null;
let before = []; // the ends of the pages that are newer than this one
let words = "";
let newest = null;
const rows = new Map();
const chosen = () => (/^#[0-9]{1,20}$/.test(location.hash) ? location.hash.slice(1) : "");

// -- the list -------------------------------------------------------------------------------------------------------

function row(mail) {
  const parts = Object.fromEntries(["who", "when", "what", "to", "size"].map((name) => [name, el("span", { class: name, dir: "auto" })]));
  const unread = el("span", { class: "unseen" });
  const link = el("a", { href: `#${mail.id}` }, parts.who, parts.when, parts.what, unread, parts.to, parts.size);
  return { li: el("li", { "data-id": mail.id }, link), link, parts, unread };
}

function fill(kept, mail) {
  say(kept.parts.who, people(mail.from) || plain(mail.envelope_from || "") || "nobody");
  say(kept.parts.when, clock(Date.parse(mail.at)));
  say(kept.parts.what, plain(mail.subject) || "(no subject)");
  const to = mail.envelope_to.length ? mail.envelope_to.slice(0, 3).map(plain).join(", ") : people(mail.to);
  say(kept.parts.to, `to ${to}${mail.envelope_to.length > 3 ? ` and ${count(mail.envelope_to.length + mail.envelope_to_left - 3)} more` : ""}`);
  say(kept.parts.size, bytes(mail.size));
  say(kept.unread, mail.unread ? "unread" : "");
  kept.link.toggleAttribute("data-unread", mail.unread);
  if (mail.id === chosen()) kept.link.setAttribute("aria-current", "true");
  else kept.link.removeAttribute("aria-current");
}

// Rows are kept by their mail: who has the focus on one keeps it.
function showList(found) {
  const left = new Set(rows.keys());
  let last = null;
  for (const mail of found.mails) {
    if (!rows.has(mail.id)) rows.set(mail.id, row(mail));
    const kept = rows.get(mail.id);
    fill(kept, mail);
    left.delete(mail.id);
    const place = last ? last.nextSibling : $("list").firstChild;
    if (place !== kept.li) $("list").insertBefore(kept.li, place);
    last = kept.li;
  }
  for (const id of left) { rows.get(id).li.remove(); rows.delete(id); }
  $("newer").disabled = !before.length;
  $("older").disabled = !found.more;
  $("older").dataset.end = found.mails.length ? found.mails[found.mails.length - 1].id : "";
  $("empty").hidden = found.mails.length > 0;
  say($("empty"), words ? `No mail has all of: ${words}` : before.length ? "No mail is older." : "No mail has come yet.");
}

function showBox(now) {
  box = now;
  const gone = now.forgotten ? `; ${count(now.forgotten)} older had to go` : "";
  say($("box-note"), `${plural(now.many, "mail")}, ${count(now.unread)} unread, ${bytes(now.bytes)}. It keeps the last ${count(now.most)}, in ${bytes(now.most_bytes)} of memory at most${gone}.`);
  document.title = `${now.unread ? `(${count(now.unread)}) ` : ""}inbox – streamq`;
  $("read-all").disabled = !now.unread;
  $("delete-all").disabled = !now.many;
}

let looking = false;
let again = false;
async function list() {
  if (looking) { again = true; return; }
  looking = true;
  try {
    do {
      again = false;
      const asked = new URLSearchParams({ limit: PAGE, ...(words ? { q: words } : {}), ...(before.length ? { before: before[before.length - 1] } : {}) });
      const found = await talk.look(`/api/mails?${asked}`);
      showBox(found);
      showList(found);
      if (newest !== null && BigInt(found.last) > BigInt(newest) && found.mails.length && !words && !before.length) tell(`New: ${plain(found.mails[0].subject) || "(no subject)"}`);
      newest = found.last;
    } while (again);
  } catch (wrong) {
    trouble(wrong);
  } finally {
    looking = false;
  }
}

function turn(pages) {
  before = pages;
  return list();
}
$("newer").addEventListener("click", () => turn(before.slice(0, -1)));
$("older").addEventListener("click", () => turn([...before, $("older").dataset.end]));
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  words = $("search-q").value.trim();
  turn([]);
});
$("search-q").addEventListener("search", () => { // the cross in the field
  if ($("search-q").value || !words) return;
  words = "";
  turn([]);
});

$("list").addEventListener("keydown", (event) => {
  const li = event.target.closest("li");
  if (!li || event.ctrlKey || event.altKey || event.metaKey) return;
  const step = { ArrowDown: "nextElementSibling", j: "nextElementSibling", ArrowUp: "previousElementSibling", k: "previousElementSibling" }[event.key];
  if (step) {
    event.preventDefault();
    li[step]?.firstChild.focus();
  } else if (event.key === "Delete") {
    event.preventDefault();
    const next = li.nextElementSibling || li.previousElementSibling;
    remove(li.dataset.id).then(() => next?.firstChild.focus());
  }
});

// -- what people do -------------------------------------------------------------------------------------------------

// A file that stays is in the inbox again when the sink starts anew.
const deletedWords = (said) => `${plural(said.deleted, "mail")} deleted${said.failed ? `; of ${count(said.failed)} the file stays: ${said.why[0]}` : ""}`;

async function remove(id) {
  try {
    const said = await talk.change("DELETE", `/api/mails/${id}`);
    showBox(said);
    tell(said.failed ? deletedWords(said) : "deleted");
    if (id === chosen()) close();
    await list();
  } catch (wrong) {
    trouble(wrong);
  }
}

$("delete-all").addEventListener("click", () => {
  const many = plural(box.many, "mail");
  ask(`Delete ${many}`, "All that the inbox keeps, found or not. A Maildir's files go, too.", [], "Delete", async () => {
    const said = await talk.change("DELETE", "/api/mails");
    close();
    await turn([]);
    tell(deletedWords(said));
  });
});

$("read-all").addEventListener("click", async () => {
  try {
    await talk.change("POST", "/api/mails", { unread: false });
    await list();
  } catch (wrong) {
    trouble(wrong);
  }
});

function close() {
  history.pushState(null, "", location.pathname);
  open();
}
$("back").addEventListener("click", () => {
  const id = chosen();
  close();
  (rows.get(id)?.link || $("list")).focus();
});

// -- one mail -------------------------------------------------------------------------------------------------------

async function open() {
  const id = chosen();
  for (const [name, kept] of rows) {
    if (name === id) kept.link.setAttribute("aria-current", "true");
    else kept.link.removeAttribute("aria-current");
  }
  $("mail").hidden = !id;
  if (!id) { $("mail-body").replaceChildren(); return; }
  say($("mail-title"), "…");
  $("mail-body").replaceChildren();
  try {
    const mail = await talk.look(`/api/mails/${id}`);
    if (id !== chosen()) return;
    say($("mail-title"), brief(plain(mail.subject)) || "(no subject)");
    showMail($("mail-body"), mail, {
      remove: () => remove(id),
      unread: async () => { showBox(await talk.change("POST", `/api/mails/${id}`, { unread: true })); await list(); },
      source: () => talk.text(`/api/mails/${id}/source`),
    });
    $("mail-title").focus();
    if (mail.unread) showBox(await talk.change("POST", `/api/mails/${id}`, { unread: false }));
  } catch (wrong) {
    say($("mail-title"), "Not here");
    $("mail-body").replaceChildren(el("p", { class: "error", id: "mail-error" }, wrong.message));
    trouble(wrong, false);
  }
}
addEventListener("hashchange", open); // popstate comes with it, and would open it twice

// -- begin ----------------------------------------------------------------------------------------------------------

function up(yes, why) {
  $("link").dataset.up = yes ? "yes" : "no";
  say($("link"), why);
}

function trouble(wrong, aloud = true) {
  if (wrong.status === 401) unlock();
  else if (aloud) tell(wrong.message);
}

function unlock() {
  if ($("dialog").open) return;
  ask("Unlock", "The token that STREAMQ_WEB_TOKEN holds where the inbox runs. It is kept until this tab closes.", [{ name: "token", label: "Token", type: "password" }], "Unlock", async (given) => {
    await talk.unlock(given.token);
    await list();
    if ($("mail-error")) open();
  });
}

talk.follow(async (kind, now) => {
  if (kind !== "inbox") return;
  up(true, "live");
  showBox(now);
  await list();
}, (why, status) => {
  up(false, why);
  if (status === 401) unlock();
}, "/api/mails/stream");
if (chosen()) open();
