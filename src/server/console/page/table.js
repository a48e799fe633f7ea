// Tables that change in place: rows keep their elements, and so their focus and place.

import { fill, h, say } from "./dom.js";

/** A table of columns `{ title, cell, num, pre }`; `cell` makes a text or an element of a row.
 *  `show(rows)` changes what is in it; rows are told apart by `key`. */
export function table(columns, { key = (row, i) => i, caption, tall } = {}) {
  const body = h("tbody");
  const head = columns.map(({ title, num }) => h("th", { scope: "col", class: num && "num" },
    title));
  const element = h("div", { class: `table${tall ? " tall" : ""}`, tabindex: 0, role: "region",
    "aria-label": caption },
  h("table", {}, h("thead", {}, h("tr", {}, head)), body));
  const known = new Map();
  const show = (rows) => {
    const wanted = new Set();
    rows.forEach((row, i) => {
      const name = key(row, i);
      wanted.add(name);
      let line = known.get(name);
      if (!line) {
        line = h("tr", {}, columns.map(({ num, pre }) =>
          h("td", { class: num ? "num" : pre ? "pre" : null })));
        known.set(name, line);
      }
      columns.forEach(({ cell }, at) => put(line.children[at], cell(row)));
      if (body.children[i] !== line) body.insertBefore(line, body.children[i] ?? null);
    });
    for (const [name, line] of known) {
      if (wanted.has(name)) continue;
      line.remove();
      known.delete(name);
    }
  };
  return { element, show };
}

/** A text or elements in a cell; elements that say the same stay. */
function put(cell, value) {
  if (value instanceof Node || Array.isArray(value)) {
    const next = h("div", {}, value);
    if (cell.dataset.shown !== next.innerText && cell.dataset.shown !== next.textContent) {
      fill(cell, ...next.childNodes);
      cell.dataset.shown = next.textContent;
    }
  } else {
    delete cell.dataset.shown;
    say(cell, value === null || value === undefined ? "" : String(value));
  }
}

/** The word for a state, coloured by how well it is. */
export function badge(state, title) {
  const good = ["running", "idle", "ended", "connected", "newest", "kept", "OK",
    "active", "info"];
  const bad = ["failed", "quarantined", "unavailable", "HIGH", "error", "unreachable"];
  const level = good.includes(state) ? "ok" : bad.includes(state) ? "high" : "low";
  return h("span", { class: `badge ${level}`, title }, state);
}

/** A table of a result as it came, texts in columns of numbers to the right. */
export function plain(columns, lines, isNumber) {
  const cell = (text, column) => text === null
    ? h("td", { class: "none" }, "null")
    : h("td", { class: isNumber(column.type) ? "num" : text.includes("\n") ? "pre" : null }, text);
  return h("div", { class: "table tall", tabindex: 0, role: "region", "aria-label": "Result" },
    h("table", {},
      h("thead", {}, h("tr", {}, columns.map((c) =>
        h("th", { scope: "col", title: c.type, class: isNumber(c.type) ? "num" : null },
          c.name)))),
      h("tbody", {}, lines.map((line) => h("tr", {}, columns.map((c, i) => cell(line[i], c)))))));
}
