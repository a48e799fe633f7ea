// All materialized views: what they hold, how much they do, and how far they are behind.

import { rows } from "./api.js";
import { empty, fill, h, problem, top } from "./dom.js";
import { bytes, percent, seconds, short, whole } from "./format.js";
import { every } from "./poll.js";
import { badge, table } from "./table.js";

/** Of each relation the newest figures, and how fast they have grown in half a minute. */
const FIGURES = `SELECT object, name, max(value) AS value, (max(value) - min(value))
  / nullif(extract(epoch FROM max(at) - min(at)), 0) AS rate FROM headwater.metrics
  WHERE at > (SELECT max(at) FROM headwater.metrics) - INTERVAL '35 seconds' AND object <> ''
  GROUP BY object, name`;

const FIRST = `CREATE MATERIALIZED VIEW balance AS
  SELECT account, count(*) AS payments, sum(amount) AS total FROM payment GROUP BY account;`;

/** Figures by object and name. */
export async function figures(signal) {
  const found = new Map();
  for (const row of await rows(FIGURES, { signal })) {
    const of = found.get(row.object) ?? found.set(row.object, {}).get(row.object);
    const number = (text) => text === null ? undefined : Number(text);
    of[row.name] = { value: number(row.value), rate: number(row.rate) };
  }
  return found;
}

/** The page. */
export function views(main) {
  const wrong = h("div");
  const nothing = h("div");
  let known = new Map();
  const figure = (view, name, what = "value") =>
    known.get(view.name)?.[`headwater_${name}`]?.[what];
  const waiting = (view) => figure(view, "operator_held_up_seconds_total", "rate");
  const shown = table([
    { title: "View", cell: (v) => h("a", { href: `#/views/${encodeURIComponent(v.name)}` },
      v.name) },
    { title: "State", cell: (v) => badge(v.state, v.detail) },
    { title: "Rows", num: true, cell: (v) => whole(figure(v, "relation_rows")) },
    { title: "Changes in", num: true,
      cell: (v) => `${short(figure(v, "operator_rows_in_total", "rate"))}/s` },
    { title: "State held", num: true, cell: (v) => bytes(figure(v, "state_bytes")) },
    { title: "Busy", num: true,
      cell: (v) => percent(figure(v, "operator_busy_seconds_total", "rate")) },
    { title: "Waiting", num: true, cell: (v) => percent(waiting(v)) },
    { title: "Behind", num: true, cell: (v) => seconds(figure(v, "watermark_lag_seconds")) },
  ], { key: (v) => v.name, caption: "Materialized views" });
  const card = h("div", { class: "card" }, shown.element);
  fill(main, top("Views"), wrong, nothing, card);
  return every(3000, async (signal) => {
    const all = await rows("SHOW MATERIALIZED VIEWS", { signal });
    known = await figures(signal);
    card.hidden = !all.length;
    fill(nothing, all.length ? null
      : empty("There is no materialized view yet. One is a query whose answer is kept:", FIRST));
    for (const v of all.filter((v) => v.detail)) {
      nothing.append(h("div", { class: "note high" }, h("b", {}, v.name), `: ${v.detail}`));
    }
    shown.show(all);
  }, (error) => fill(wrong, error && problem(error)));
}
