// A relation as it changes: the rows of SUBSCRIBE, kept up to date in place.

import { fill, h, say } from "./dom.js";
import { isNumber, short, whole } from "./format.js";

/** Rows that are kept, and shown; what is beyond is counted alone. */
const KEPT = 20_000;
const SHOWN = 200;

/** Milliseconds between two pictures. */
const PACE = 250;

/** Rows of a subscription under construction: `add(rows)` as they come. */
export function live(columns) {
  // The progress, epoch and weight of a change stand ahead of the row itself.
  const [epoch, weight] = ["epoch", "weight"].map((name) =>
    columns.findIndex((column) => column.name === name));
  const own = columns.slice(weight + 1);
  const held = new Map();
  // Places of rows on the screen: a row that takes the place of another one stands there.
  const [order, free] = [[], []];
  const lines = new Map();
  let [changes, at, over, timer, ended] = [0, "–", false, null, false];
  let [last, lastChanges, pace] = [performance.now(), 0, 0];
  const body = h("tbody");
  const told = h("p", { class: "soft num" }, "waiting for the first rows");
  const element = h("section", { class: "card" }, told,
    h("div", { class: "table tall", tabindex: 0, role: "region",
      "aria-label": "Rows as they change" },
      h("table", {}, h("thead", {}, h("tr", {}, own.map((c) => h("th", { scope: "col",
        title: c.type, class: isNumber(c.type) ? "num" : null }, c.name)))), body)));
  const draw = () => {
    timer = null;
    const now = performance.now();
    if (now - last > 900) {
      pace = (changes - lastChanges) / (now - last) * 1000;
      [last, lastChanges] = [now, changes];
    }
    const shown = order.filter((key) => held.get(key)?.count > 0).slice(0, SHOWN);
    const wanted = new Set(shown);
    for (const [key, line] of lines) {
      if (wanted.has(key)) continue;
      line.remove();
      lines.delete(key);
    }
    const first = lines.size === 0;
    shown.forEach((key, i) => {
      const { row, count } = held.get(key);
      let line = lines.get(key);
      if (!line) {
        line = h("tr", { class: first ? null : "fresh" }, row.map((text, at) =>
          h("td", { class: isNumber(own[at].type) ? "num" : text === null ? "none" : null },
            text ?? "null")));
        lines.set(key, line);
      }
      line.title = count > 1 ? `${count} times` : "";
      if (body.children[i] !== line) body.insertBefore(line, body.children[i] ?? null);
    });
    say(told, `${over ? "more than " : ""}${whole(held.size)} rows${
      held.size > SHOWN ? `, ${SHOWN} of them shown` : ""}; ${whole(changes)} changes, ${
      short(pace)}/s; epoch ${at}${ended ? "; ended" : ""}`);
  };
  const soon = () => (timer ??= setTimeout(draw, PACE));
  const beat = setInterval(soon, 1000);
  const place = (key, row) => {
    const same = free.findIndex((other) => other.first === row[0]);
    const [slot] = free.length ? free.splice(Math.max(0, same), 1) : [{ at: order.length }];
    order[slot.at] = key;
    return slot.at;
  };
  const change = (row, by) => {
    const key = JSON.stringify(row);
    const had = held.get(key);
    if (had) {
      had.count += by;
      if (had.count) return;
      held.delete(key);
      order[had.slot] = null;
      free.push({ at: had.slot, first: row[0] });
    } else if (held.size >= KEPT) over = true;
    else if (by > 0 || !over) held.set(key, { row, count: by, slot: place(key, row) });
  };
  return {
    element,
    add(rows) {
      at = rows.at(-1)?.[epoch] ?? at;
      const weights = rows.map((line) => Number(line[weight] ?? 0));
      // What goes makes room for what comes.
      for (const sign of [-1, 1]) {
        rows.forEach((line, i) => {
          if (Math.sign(weights[i]) === sign) change(line.slice(weight + 1), weights[i]);
        });
      }
      changes += weights.filter(Boolean).length;
      soon();
    },
    end() {
      ended = true;
      clearInterval(beat);
      draw();
    },
  };
}
