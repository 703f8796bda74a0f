// The page: what the stream says, put into its places; what people do, asked and sent.
import { $, el, button, say, visible, count, plural, lasts, bytes, rate, second, Table } from "./dom.js";
import * as charts from "./charts.js";
import * as talk from "./talk.js";
import { ask, tell } from "./dialog.js";
import { showLetter } from "./story.js";
import { listen } from "./find.js";
import { limitWords, showRules, shutting, siteState, state } from "./ways.js";

const STATES = ["waiting", "leased", "parked", "scheduled", "held"];
let mayChange = false;
const canAct = () => mayChange && talk.hasToken();

// -- tables ---------------------------------------------------------------------------------------------------------

const depth = new Table($("depth"), "Live mails by priority and state", [
  { name: "priority", of: (row) => row.name },
  { name: "waiting", class: "num", of: (row) => count(row.states.waiting || 0) },
  { name: "longest unread", class: "num", of: (row) => (row.unread ? lasts(row.unread) : "–") }, // beside it, so that a phone shows it
  ...STATES.slice(1).map((name) => ({ name, class: "num", of: (row) => count(row.states[name] || 0) })),
  { name: "all", class: "num", of: (row) => count(STATES.reduce((sum, name) => sum + (row.states[name] || 0), 0)) },
  { name: "oldest", class: "num", of: (row) => (row.oldest ? lasts(row.oldest) : "–") },
], "no priorities");

const closable = (kind, row) => {
  if (!canAct()) return [];
  const what = `${kind} ${row.name}`;
  const shut = shutting(kind, row).length > 0;
  const acts = [shut ? { name: "Resume", label: `Resume ${what}`, run: (now) => resume(kind, now) } : { name: "Pause", label: `Pause ${what}`, run: (now) => pause(kind, now) }];
  return [...acts, { name: "Limit", label: `Limit ${what}`, run: (now) => limit(kind, now) }];
};

const routes = new Table($("routes"), "Routes", [
  { name: "route", of: (row) => row.name },
  { name: "state", class: "words", of: state },
  { name: "parked", class: "num", of: (row) => count(row.parked) },
  { name: "connections", class: "num", of: (row) => `${row.standing} of ${row.granted}` },
  { name: "its server takes", class: "num", of: (row) => (row.learnt && row.learnt.refused_ms !== null ? `${row.learnt.connections} at once` : "–") },
  { name: "limit", of: (row) => limitWords(row.limit) },
  { name: "", class: "acts", acts: (row) => closable("route", row) },
], "no route is known");

const sites = new Table($("sites"), "Sites", [
  { name: "site", of: (row) => row.name },
  { name: "route", of: (row) => (row.route === "*" ? "all" : row.route) },
  { name: "state, last reply", class: "words", of: siteState },
  { name: "parked", class: "num", of: (row) => count(row.parked) },
  { name: "rate in force", class: "num", of: (row) => rate(row.rate) },
  { name: "limit", of: (row) => limitWords(row.limit) },
  { name: "next", class: "num", of: (row) => (row.parked ? (row.next_ms === null ? "?" : row.next_ms <= 0 ? "now" : lasts(row.next_ms)) : "–") },
  { name: "all gone in", class: "num", of: (row) => (row.parked ? (row.drained_ms === null ? "?" : lasts(row.drained_ms)) : "–") },
  { name: "", class: "acts", acts: (row) => closable("site", row) },
], "nothing is parked, no site fails, and none has a limit or a pause of its own");

const dead = new Table($("dead"), "Dead letters by reason, and the domains of each", [
  { name: "class", of: (row) => (row.of ? el("span", { class: "unseen" }, row.class) : row.class || "?") },
  { name: "reason", class: "words", of: (row) => (row.of ? "" : row.reason || row.reply || "–") },
  { name: "domain", class: "words", of: domainWords },
  { name: "letters", class: "num", of: (row) => count(row.many) },
  { name: "newest", class: "num", of: (row) => (row.newest ? `${lasts(Math.max(0, seen.now_ms - row.newest_ms))} ago` : "") },
  { name: "", class: "acts", acts: (row) => [
    ...(row.domains && row.domains.length > 1 ? [{ name: opened.has(row.key) ? "Fewer" : "Domains", label: `${opened.has(row.key) ? "Hide" : "Show"} the domains of ${named(row)}`, run: toggle }] : []),
    ...(row.newest ? [{ name: "Look", label: `Look at the newest dead letter of ${named(row)}`, run: (now) => lookAt(now.newest) }] : []),
    ...(row.newest && canAct() ? [
      { name: "Requeue", label: `Requeue all of ${named(row)}`, run: (now) => group("requeue", now) },
      { name: "Discard", label: `Discard all of ${named(row)}`, run: (now) => group("discard", now) }] : [])] },
], "none");

function domainWords(row) {
  if (row.rest) return `and ${plural(row.rest, "domain")} more`;
  if (!row.domains) return row.domain || "–";
  const [first, ...others] = row.domains;
  const more = others.length + row.domains_left;
  return more ? `${first.domain || "–"} and ${count(more)} more` : first.domain || "–";
}

// A row is a reason, or below it one of its domains.
const named = (row) => `${row.class} ${row.of || row.domains.length === 1 ? (row.domain ?? row.domains[0].domain) : row.reason || row.reply}`;

const workers = new Table($("workers"), "Worker processes", [
  { name: "worker", of: (row) => row.name },
  { name: "state", of: (row) => el("span", { class: `mark ${row.alive ? "good" : "bad"}` }, row.alive ? "alive" : "silent") },
  { name: "in hand", class: "num", of: (row) => count(row.pending) },
  { name: "last seen", class: "num", of: (row) => `${lasts(row.idle_ms)} ago` },
], "no worker: streamq worker");

// -- what the stream says -------------------------------------------------------------------------------------------

let seen = { now_ms: Date.now() };
let deadAt = -1;
let reasons = [];
const opened = new Set();

// Reasons, and behind those that somebody opened their domains.
function showReasons() {
  const rows = reasons.flatMap((each) => {
    if (!opened.has(each.key)) return [each];
    const inside = each.domains.map((one) => ({ ...one, of: each, class: each.class, key: `${each.key}\n${one.domain}` }));
    const rest = each.domains_left ? [{ of: each, class: each.class, rest: each.domains_left, many: each.letters_left, key: `${each.key}\n\n` }] : [];
    return [each, ...inside, ...rest];
  });
  dead.show(rows, (row) => row.key);
}

function toggle(row) {
  if (!opened.delete(row.key)) opened.add(row.key);
  showReasons();
  dead.rows.get(row.key).tr.querySelector("button").focus();
}

const AGO_MS = 10000; // what is older by more is no look under way, but of another clock
let newest = 0; // of all that was shown, by Redis' clock

function show(now) {
  const ago = newest - now.now_ms;
  if (ago > 0 && ago < AGO_MS) return; // it was under way when an order's answer, which is newer, came
  newest = now.now_ms;
  seen = now;
  delete $("main").dataset.old;
  $("old").hidden = true;
  mayChange = now.may_change;
  $("lock").hidden = !mayChange;
  say($("lock"), talk.hasToken() ? "Lock" : "Unlock");
  $("site-form").hidden = !canAct();
  say($("queue"), now.queue);
  document.title = `${visible(now.verdict.words)} – streamq ${now.queue}`;
  $("verdict").dataset.level = now.verdict.level;
  say($("verdict-words"), now.verdict.words);
  say($("verdict-lately"), now.verdict.lately);
  showTroubles(now.verdict.troubles.map((each) => each.words));
  if (now.sample) charts.know([now.sample]);
  const flow = charts.now();
  say($("tile-in"), flow.in === null ? "–" : rate(flow.in));
  say($("tile-out"), flow.out === null ? "–" : rate(flow.out));
  say($("tile-live"), count(now.live));
  const sum = (name) => Object.values(now.depth).reduce((all, states) => all + (states[name] || 0), 0);
  say($("tile-live-note"), `${count(sum("waiting"))} unread, ${count(sum("scheduled"))} scheduled`);
  const oldest = Object.entries(now.oldest_ms).sort((one, other) => other[1] - one[1])[0];
  say($("tile-oldest"), oldest && oldest[1] ? lasts(oldest[1]) : "–");
  say($("tile-oldest-note"), oldest && oldest[1] ? oldest[0] : "");
  say($("tile-dead"), count(now.dead));
  say($("tile-dead-note"), `${count(now.tallies.dead || 0)} ever`);
  say($("tile-workers"), count(now.workers));
  say($("tile-workers-note"), `${plural(sum("leased"), "mail")} in hand`);
  say($("tile-redis"), bytes(now.memory));
  say($("tile-redis-note"), now.memory_max ? `of ${bytes(now.memory_max)}` : "no maxmemory");
  depth.show(Object.entries(now.depth).map(([name, states]) => ({ name, states, oldest: now.oldest_ms[name], unread: (now.aged_ms[name] || {}).waiting })), (row) => row.name);
  showRules(now.standing, Object.keys(now.rules).length, canAct() ? (rule) => done({ verb: "end", rule: rule.name }, `ended: ${rule.words}`) : null);
  routes.show(now.routes, (row) => row.name);
  sites.show(now.sites, (row) => `${row.route}|${row.name}`);
  const more = [now.sites_left && `${plural(now.sites_left, "lane")} more`, now.troubled_left && `${plural(now.troubled_left, "site")} more that fail`].filter(Boolean);
  say($("sites-note"), more.length ? `and ${more.join(", ")}: streamq site ls` : "");
  workers.show(now.consumers, (row) => row.name);
  charts.draw();
  if (now.dead_version === deadAt) showReasons();
  else lookAtDead();
}

function showTroubles(troubles) {
  if ($("troubles").dataset.said === troubles.join("\n")) return;
  $("troubles").dataset.said = troubles.join("\n");
  const kinds = troubles.join("\n").replace(/[\d.,]+/g, "#"); // who has it read aloud need not hear each number
  $("troubles").setAttribute("aria-live", kinds === $("troubles").dataset.kinds ? "off" : "polite");
  $("troubles").dataset.kinds = kinds;
  $("troubles").replaceChildren(...troubles.map((words) => el("li", {}, words)));
}

// Nobody can tell how the queue is: that is said first, and what stands below is of then, and looks and sounds so.
function showOld(words, sinceMs, level = "bad") {
  const said = sinceMs ? `${words} since ${second(sinceMs)}` : words;
  $("verdict").dataset.level = level;
  say($("verdict-words"), said);
  say($("verdict-lately"), "");
  showTroubles([]);
  document.title = `${said} – streamq ${seen.queue || ""}`;
  if (!shownAt || $("main").dataset.old) return;
  $("main").dataset.old = "yes";
  $("old").hidden = false;
  say($("old"), `What stands below is of ${second(shownAt)}.`);
  charts.old(second(shownAt));
}

function up(yes, words) {
  $("link").dataset.up = yes ? "yes" : "no";
  say($("link"), words);
}

async function lookAtDead() {
  deadAt = seen.dead_version;
  try {
    const found = await talk.look("/api/dead");
    reasons = found.reasons.map((each) => ({ ...each, key: `${each.class}\n${each.gist}` }));
    showReasons();
    const parts = [];
    if (found.looked < seen.dead) parts.push(`the newest ${count(found.looked)} of ${count(seen.dead)}`);
    if (found.reasons_left) parts.push(`and ${plural(found.reasons_left, "reason")} more`);
    say($("dead-note"), parts.join("; "));
  } catch (wrong) {
    say($("dead-note"), wrong.message);
  }
}

// -- what people do -------------------------------------------------------------------------------------------------

async function done(what, words) {
  const said = await talk.order(what);
  show(said.overview);
  tell(typeof words === "function" ? words(said.done) : words);
  return said.done;
}

// A site is paused and limited on all routes, and opened where it is closed: on one, or on all.
const target = (kind, row, route = "*") => ({ kind, name: row.name, ...(kind === "site" ? { route } : {}) });

function pause(kind, row) {
  ask(`Pause ${kind} ${row.name}`, "Nothing goes there any more; its mails wait, without an attempt.", [
    { name: "reason", label: "Why (others read it)" }, { name: "for", label: "For how long (empty: until somebody resumes it)", hint: "2h" },
  ], "Pause", (given) => done({ verb: "pause", ...target(kind, row), reason: given.reason, ...(given.for ? { for: given.for } : {}) }, `${row.name} is paused`));
}

function resume(kind, row) {
  ask(`Resume ${kind} ${row.name}`, "Its mails go at once, through the limits.", [], "Resume", async () => {
    for (const each of shutting(kind, row)) await done({ verb: "resume", ...target(kind, row, each.route) }, `${row.name} is open`);
  });
}

function limit(kind, row) {
  ask(`Limit ${kind} ${row.name}`, `It is ${limitWords(row.limit)}. It holds for all workers from the next mail on, over what files say; all empty: what files say holds again.`, [
    { name: "rate", label: "Mails a window (several with commas)", hint: "50/s, 60000/h" }, { name: "connections", label: "At once (0: no limit)", type: "number" },
  ], "Set", (given) => done({ verb: "limit", ...target(kind, row), ...(given.rate ? { rate: given.rate } : {}), ...(given.connections ? { connections: Number(given.connections) } : {}), ...(!given.rate && !given.connections ? { unset: true } : {}) }, `the limit of ${row.name} is set`));
}

const KEPT = {
  missing: "gone meanwhile", packed: "no mail of ours", partly: "some of its recipients have theirs, and who the others are was not kept", envelope: "it names no recipient",
  sensitive: "its body was not kept, as it is sensitive: streamq dead requeue --set text=…", bodiless: "its body was not kept: streamq dead requeue --set text=…",
};

function deadWords(verb, said) {
  const kept = Object.entries(said.kept || {}).map(([why, many]) => `${count(many)} not: ${KEPT[why] || why}`);
  return [`${plural(said.done, "letter")} ${verb === "requeue" ? "requeued" : "discarded"}`, ...kept].join(", ");
}

function group(verb, row) {
  const words = verb === "requeue" ? "They become waiting mails again." : "They are gone for good.";
  ask(`${verb === "requeue" ? "Requeue" : "Discard"} ${plural(row.many, "dead letter")}`, `${named(row)}: ${words}`, [], verb === "requeue" ? "Requeue" : "Discard",
    () => done({ verb, class: row.class, gist: (row.of || row).gist, ...(row.of ? { domain: row.domain } : {}) }, (said) => deadWords(verb, said)));
}

function actOnDead(verb, name, then) {
  const [label, words] = verb === "requeue" ? ["Requeue", "It becomes a waiting mail again."] : ["Discard", "It is gone for good."];
  return ask(`${label} dead letter ${name}`, words, [], label, async () => {
    await done({ verb, letters: [name] }, (said) => deadWords(verb, said));
    then();
  });
}

async function lookAt(name, place = $("letter"), gone = () => {}) {
  try {
    const letter = await talk.look(`/api/dead/${encodeURIComponent(name)}`);
    const clear = () => place.replaceChildren();
    const then = () => { clear(); gone(); };
    const acts = canAct() ? [button("Requeue", () => actOnDead("requeue", name, then)), button("Discard", () => actOnDead("discard", name, then))] : [];
    showLetter(place, letter, [...acts, button("Close", clear)]);
  } catch (wrong) {
    tell(wrong.message);
  }
}

// Of a dead mail that was found: its buttons, and where it is shown.
function deadFound(letter, name) {
  const place = el("div", {});
  const buttons = el("p", { class: "buttons" });
  const gone = () => buttons.replaceChildren();
  buttons.append(button("Look", () => lookAt(letter, place, gone), `Look at the dead letter of ${name}`),
    ...(canAct() ? [button("Requeue", () => actOnDead("requeue", letter, () => { gone(); place.replaceChildren(); }), `Requeue ${name}`)] : []));
  return [buttons, place];
}

listen({ canAct, done, deadFound, live: () => seen.live || 0 });

$("site-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const row = { name: $("site-name").value.trim(), route: "*", limit: { words: "" } };
  if (event.submitter.value === "pause") pause("site", row);
  else limit("site", row);
});

function unlock() {
  ask("Unlock", "The token that STREAMQ_WEB_TOKEN holds where streamq serve runs. It is kept until this tab closes.", [{ name: "token", label: "Token", type: "password" }], "Unlock", async (given) => {
    await talk.unlock(given.token);
    if (seen.queue) show(seen);
    tell("unlocked");
  });
}
$("lock").addEventListener("click", () => {
  if (!talk.hasToken()) return unlock();
  talk.forget();
  return show(seen);
});

// -- begin ----------------------------------------------------------------------------------------------------------

let begun = false;
async function begin() {
  if (begun) return;
  begun = true;
  charts.know(await talk.look("/api/history").catch(() => []));
}

let shownAt = 0; // when the figures came, by this clock
let heardAt = Date.now(); // and anything at all
const SILENT_MS = 15000; // the server says something every two seconds, and of a Redis that hangs after five
const BLINK_MS = 3000; // it was started anew, or another tab takes the stream

const server = () => showOld("The server of this page has not answered", shownAt || begunAt);
const begunAt = heardAt;
document.addEventListener("visibilitychange", () => { heardAt = Date.now(); });
setInterval(() => { if (document.visibilityState !== "hidden" && Date.now() - heardAt > SILENT_MS) { up(false, "no word from the server"); server(); } }, 1000);

talk.follow(async (kind, data) => {
  heardAt = Date.now();
  if (kind === "overview") {
    await begin();
    up(true, "live");
    show(data);
    shownAt = Date.now();
  } else {
    up(false, `Redis is away: ${data.error}`);
    showOld("Redis has not answered", data.away_ms === null ? begunAt : Date.now() - data.away_ms);
  }
}, (why, status) => {
  up(false, why);
  if (status) showOld(status === 401 ? "The token is wanted" : `The server refuses: ${why}`, 0, "warn");
  else if (!shownAt || Date.now() - shownAt > BLINK_MS) server();
  if (status === 401 && !$("dialog").open) { $("lock").hidden = false; unlock(); }
});
