// Elements and words. Nothing that comes from the queue is ever markup: text goes in as text.

export const $ = (id) => document.getElementById(id);

// What turns text around, or is not to be seen, stands there as its number: a producer's id rewrites no line of ours.
const ODD = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
export const visible = (text) => String(text).replace(ODD, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
const READ = new Set(["aria-label", "title", "placeholder"]); // attributes that people read

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : READ.has(name) ? visible(value) : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== "").map((child) => (child instanceof Node ? child : visible(child))));
  return made;
}

export const button = (label, onclick, name = label) => el("button", { type: "button", "aria-label": name === label ? null : name, onclick }, label);

// Only where it changed: a selection, a focus, a screen reader stay where they are.
export function say(element, text) {
  const words = visible(text);
  if (element.textContent !== words) element.textContent = words;
}

const LONG = 200; // characters
const LINES = 5;
export function brief(text) {
  const start = text.slice(0, LONG).split("\n").slice(0, LINES).join("\n").replace(/[\ud800-\udbff]$/, "");
  return start.length < text.length ? `${start}…` : text;
}

// What is long has a beginning, and is whole when somebody asks: else all that comes after it is off the screen.
export function foldable(text) {
  const start = brief(text);
  if (start === text) return text;
  return el("details", {}, el("summary", {}, el("span", { class: "start" }, start), " ", el("span", { class: "whole" }, `all ${count(text.length)} characters`)), text);
}

const NUMBER = new Intl.NumberFormat("en");
export const count = (many) => NUMBER.format(many);
export const plural = (many, one, more = one + "s") => `${count(many)} ${many === 1 ? one : more}`;

export function lasts(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  for (const [size, unit] of [[86400000, "d"], [3600000, "h"], [60000, "m"]]) {
    if (ms >= size) return `${(ms / size).toFixed(1)} ${unit}`;
  }
  return `${(ms / 1000).toFixed(1)} s`;
}

export function bytes(many) {
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) if (many >= size) return `${(many / size).toFixed(1)} ${unit}`;
  return `${many} B`;
}

export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return "–";
  for (const [unit, seconds] of [["s", 1], ["m", 60], ["h", 3600]]) {
    if (perSecond * seconds >= 1) return `${Number((perSecond * seconds).toPrecision(3))}/${unit}`;
  }
  return perSecond > 0 ? `${Number((perSecond * 86400).toPrecision(3))}/d` : "0/s";
}

// Of the day, as whoever looks has it.
export const second = (ms) => new Date(ms).toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
export const clock = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

const cell = (column, at) => (at
  ? el("td", { role: "cell", class: column.class || "", "data-label": column.name || false })
  : el("th", { scope: "row", role: "rowheader", class: column.class || "" }));

// A table whose rows are kept by their key. columns: [{name, class?, of(row) → text or element}]; the first is its header.
// On a phone its rows are cards (style.css): each cell knows its column's name, and roles are said, as CSS takes them away.
export class Table {
  constructor(table, caption, columns, empty) {
    this.columns = columns;
    this.empty = empty;
    this.body = el("tbody", { role: "rowgroup" });
    this.rows = new Map();
    const head = columns.map((column) => el("th", { scope: "col", role: "columnheader", class: column.class === "num" ? "num" : "" }, column.name || el("span", { class: "unseen" }, "Actions")));
    table.setAttribute("role", "table");
    table.append(el("caption", { class: "unseen" }, caption), el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...head)), this.body);
  }

  show(rows, key) {
    const left = new Map(this.rows);
    let before = null;
    for (const row of rows) {
      const name = key(row);
      let kept = this.rows.get(name);
      if (!kept) {
        const tr = el("tr", { role: "row", "data-key": name });
        kept = { tr, data: row, cells: this.columns.map((column, at) => tr.appendChild(cell(column, at))) };
        this.rows.set(name, kept);
      }
      kept.data = row;
      this.columns.forEach((column, at) => {
        if (column.acts) this.act(kept, column, at);
        else {
          const found = column.of(row);
          if (found instanceof Node) kept.cells[at].replaceChildren(found);
          else say(kept.cells[at], found);
        }
      });
      left.delete(name);
      const place = before ? before.nextSibling : this.body.firstChild;
      if (place !== kept.tr) this.body.insertBefore(kept.tr, place);
      before = kept.tr;
    }
    for (const [name, kept] of left) { kept.tr.remove(); this.rows.delete(name); }
    this.body.querySelector("tr.empty")?.remove();
    if (!rows.length) this.body.append(el("tr", { role: "row", class: "empty" }, el("td", { role: "cell", colspan: this.columns.length }, this.empty)));
  }

  // Buttons are made once and made anew only where there are others: whoever has the focus on one keeps it.
  act(kept, column, at) {
    const wanted = column.acts(kept.data);
    const names = wanted.map((act) => act.name).join("|");
    if (kept.acts === names) return;
    kept.acts = names;
    kept.cells[at].replaceChildren(...wanted.map((act) => el("button", { type: "button", "aria-label": act.label, onclick: () => act.run(kept.data) }, act.name)));
  }
}
