// Routes and sites in words: what closes or slows them, what limits them.
import { $, el, lasts, rate, count } from "./dom.js";
import { ask } from "./dialog.js";

function closedWords(each) {
  const till = each.left_ms === null ? "until somebody resumes it" : each.why === "operator" ? `for ${lasts(each.left_ms)}` : `probes in ${lasts(each.left_ms)}`;
  const what = each.why === "operator" ? "paused" : `${each.why}${each.of ? ` of ${each.of}` : ""}`;
  return `${what} ${till}${each.text ? `: ${each.text}` : ""}`;
}

export function state(row) {
  const own = row.closed.map(closedWords);
  if (own.length) return el("span", { class: "mark bad" }, own.join("; "));
  if (row.pace) return el("span", { class: "mark warn" }, `slowed to ${rate(row.pace.rate)} for ${lasts(row.pace.since_ms)}: ${row.pace.reply || row.pace.class}`);
  return el("span", { class: "mark good" }, "open");
}

// A site that is open, and fails, or puts mails off.
function troubleWords(each) {
  const next = each.next_ms === null ? "" : each.next_ms ? `, next try in ${lasts(each.next_ms)}` : ", next try now";
  return `${each.words}${next}: ${each.reply || each.klass}`;
}

export function siteState(row) {
  if (!row.trouble) return state(row);
  const told = el("span", { class: "mark warn" }, troubleWords(row.trouble));
  return row.closed.length || row.pace ? el("span", {}, state(row), "; ", told) : told;
}

export const limitWords = (limit) => (limit.words ? `${limit.words} (${limit.by || "?"})` : "none");

// What closes this row itself, rather than a route that it takes.
export const shutting = (kind, row) => row.closed.filter((each) => (kind === "site") === Boolean(each.site));

// What becomes of mail that comes, and which command ends that: there may be thousands of held mails behind one.
// end(rule): null where nobody may.
export function showRules(rules, many, end) {
  $("rules-section").hidden = !many;
  const said = JSON.stringify([rules, many, Boolean(end)]);
  if ($("rules").dataset.said === said) return;
  $("rules").dataset.said = said;
  const lines = rules.map((each) => el("li", {}, `${each.words}, until `, el("code", {}, each.ends), ...(end && each.name ? [" ", endButton(each, end)] : [])));
  if (many > rules.length) lines.push(el("li", {}, `and ${count(many - rules.length)} more: streamq status`));
  $("rules").replaceChildren(...lines);
}

function endButton(rule, end) {
  const held = rule.verb === "hold" ? ` What it has held stays held; ${rule.ends} lets that go, too.` : "";
  const asked = () => ask(`End the rule: ${rule.words}`, `What comes from now on is taken as any other mail.${held}`, [], "End", () => end(rule));
  return el("button", { type: "button", "aria-label": `End the rule: ${rule.words}`, onclick: asked }, "End");
}
