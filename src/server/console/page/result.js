// What a statement has come to: its rows as a table or as a chart.

import { ofResult } from "./chart.js";
import { fill, h } from "./dom.js";
import { isNumber, isTime } from "./format.js";
import { plain } from "./table.js";

/** Rows that are shown at once, and points of a chart. */
const SHOWN = 500;
const POINTS = 1000;

/** The columns of a chart: numbers, by the first moment, or the first that is no number. */
function axes(columns) {
  const time = columns.findIndex((c) => isTime(c.type));
  const word = columns.findIndex((c) => !isNumber(c.type));
  const by = time >= 0 ? time : word >= 0 ? word : columns.length > 1 ? 0 : -1;
  const of = columns.map((c, i) => i).filter((i) => i !== by && isNumber(columns[i].type));
  return { by, of };
}

/** A result under construction: `add(rows)` and `end(line)` as the engine tells them. */
export function result(columns) {
  const lines = [];
  const body = h("div");
  const tag = h("span", { class: "soft num" }, "…");
  const { by, of } = axes(columns);
  const kinds = of.length ? ["Table", "Lines", "Bars"] : ["Table"];
  const left = new Set();
  let kind = "Table";
  let more = SHOWN;
  const x = h("select", { "aria-label": "Across", onchange: () => draw() },
    columns.map((c, i) => h("option", { value: i }, c.name)));
  x.value = String(Math.max(0, by));
  const toggle = (name) => {
    if (!left.delete(name)) left.add(name);
    draw();
  };
  const draw = () => {
    x.hidden = kind === "Table" || columns.length < 2;
    if (kind === "Table") {
      fill(body, plain(columns, lines.slice(0, more), isNumber), lines.length > more
        && h("p", {}, h("button", { type: "button", onclick: () => (more += SHOWN, draw()) },
          `Show ${Math.min(SHOWN, lines.length - more)} more of ${lines.length}`)));
      return;
    }
    const across = columns.length < 2 ? -1 : Number(x.value);
    const taken = lines.slice(0, POINTS);
    const ordered = across >= 0 && isTime(columns[across].type)
      ? taken.toSorted((a, b) => String(a[across]).localeCompare(String(b[across]))) : taken;
    const labels = ordered.map((line, i) => across < 0 ? String(i + 1) : line[across] ?? "null");
    const series = of.filter((i) => i !== across).map((i) => ({ name: columns[i].name,
      values: ordered.map((line) => line[i] === null || !Number.isFinite(Number(line[i])) ? null
        : Number(line[i])) }));
    const axis = across < 0 ? "row" : columns[across].name;
    const shape = { left, toggle, wide: Math.min(900, body.clientWidth || 900) };
    fill(body, ordered.length ? ofResult(kind.toLowerCase(), labels, series, axis, shape)
      : h("p", { class: "soft" }, "There are no rows."));
  };
  const choice = h("div", { class: "row" }, kinds.length > 1 && kinds.map((name) =>
    h("button", { type: "button", "aria-pressed": name === kind, onclick: (event) => {
      kind = name;
      for (const b of choice.querySelectorAll("button")) {
        b.setAttribute("aria-pressed", b === event.currentTarget);
      }
      draw();
    } }, name)), x, tag);
  const element = h("section", { class: "card" }, choice, h("p"), body);
  draw();
  return {
    element,
    add(rows) {
      for (const row of rows) lines.push(row);
      if (lines.length <= SHOWN) draw();
    },
    end({ done, rows, cut, ms }) {
      draw();
      tag.textContent = `${done}${cut ? `, the first ${rows} rows` : ""}, ${ms} ms`;
    },
  };
}

/** What a statement without rows has come to. */
export function done(line) {
  return h("div", { class: "note num" }, `${line.done}, ${line.ms} ms`);
}

/** What the engine says beside. */
export function notice({ severity, message, hint }) {
  return h("div", { class: "note low" }, `${severity}: ${message}`,
    hint && h("div", {}, `Hint: ${hint}`));
}
