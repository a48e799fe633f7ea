// The engine at a glance, and over time: figures of headwater.metrics.

import { rows } from "./api.js";
import { lines } from "./chart.js";
import { empty, fill, h, problem, say, top } from "./dom.js";
import { bytes, percent, seconds, short } from "./format.js";
import { every } from "./poll.js";

/** Seconds that are shown, and of each point. */
const RANGES = { "15 minutes": [900, 10], "1 hour": [3600, 10], "24 hours": [86400, 300] };

const of = (name) => `headwater_${name}`;
const NAMES = `epochs_total epoch_seconds_total input_rows_total watermark_lag_seconds state_bytes
  operator_busy_seconds_total operator_held_up_seconds_total source_lag_messages
  source_rejected_messages_total sink_rows_total sink_lag_seconds memory_bytes checkpoint_bytes
  checkpoint_pause_seconds`.split(/\s+/).map(of);

/** Of each point in time the sum over all objects and the greatest of them. */
function question(range, step) {
  const names = NAMES.map((name) => `'${name}'`).join(", ");
  return `SELECT floor(extract(epoch FROM at) / ${step}) * ${step} AS t, name,
    max(v) AS total, max(m) AS most FROM (SELECT at, name, sum(value) AS v, max(value) AS m
    FROM headwater.metrics WHERE name IN (${names}) AND at > (SELECT max(at) FROM headwater.metrics)
    - INTERVAL '${range} seconds' GROUP BY at, name) AS f GROUP BY 1, 2 ORDER BY 1`;
}

/** What was measured under a name; null where the time in between is too long. As a `rate` it is
 *  by what it has grown: per second, or per one of another name. */
function series(found, name, pick, step, rate) {
  if (typeof rate === "string") {
    const each = new Map(series(found, of(rate), pick, step, true));
    return series(found, name, pick, step, true)
      .map(([time, value]) => [time, each.get(time) > 0 ? value / each.get(time) : null]);
  }
  const points = [];
  let last = null;
  for (const row of found) {
    if (row.name !== name) continue;
    const [time, value] = [Number(row.t), Number(row[pick])];
    const gap = last && time - last[0] > Math.max(step, 60) * 2.5;
    if (gap) points.push([last[0] + step, null]);
    if (!rate) points.push([time, value]);
    else if (last && !gap) points.push([time, Math.max(0, value - last[1]) / (time - last[0])]);
    last = [time, value];
  }
  return points;
}

const CHARTS = [
  ["Rows in", { unit: (v) => `${short(v)}/s` }, [["", "input_rows_total", "total", true]]],
  ["Rows out to sinks", { unit: (v) => `${short(v)}/s` },
    [["", "sink_rows_total", "total", true]]],
  ["Epochs", { unit: (v) => `${short(v)}/s`,
    hint: "Answers move from epoch to epoch; under load each is as old as one takes." },
  [["", "epochs_total", "total", true]]],
  ["Latency of answers", { unit: seconds,
    hint: "From the moment that rows are taken until answers have them, on average." },
  [["", "epoch_seconds_total", "total", "epochs_total"]]],
  ["Behind the clock", { unit: seconds, hint: "The watermark and the sink that are furthest." },
    [["watermark", "watermark_lag_seconds", "most"], ["sink", "sink_lag_seconds", "most"]]],
  ["Messages not yet read", {}, [["", "source_lag_messages", "total"]]],
  ["Messages rejected", { unit: (v) => `${short(v)}/s` },
    [["", "source_rejected_messages_total", "total", true]]],
  ["Time of operators", { unit: (v) => `${short(v)} s/s`,
    hint: "Seconds of processor time and of waiting per second, of all workers together." },
  [["busy", "operator_busy_seconds_total", "total", true],
    ["waiting", "operator_held_up_seconds_total", "total", true]]],
  ["Memory", { unit: bytes },
    [["all", "memory_bytes", "total"], ["state", "state_bytes", "total"]]],
  ["Checkpoints", { unit: bytes }, [["", "checkpoint_bytes", "total"]]],
  ["Pause of a checkpoint", { unit: seconds }, [["", "checkpoint_pause_seconds", "total"]]],
];

function tile(name) {
  const [value, small] = [h("b", {}, "–"), h("small")];
  const element = h("div", { class: "tile" }, h("span", {}, name), value, small);
  return { element, show: (text, more) => (say(value, text), say(small, more ?? "")) };
}

/** The page. */
export function overview(main) {
  const wrong = h("div");
  const [relations, views, sources, sinks, memory] =
    ["Relations", "Views", "Sources", "Sinks", "Memory"].map(tile);
  const tiles = h("div", { class: "tiles" },
    [views, sources, sinks, relations, memory].map((t) => t.element));
  const charts = CHARTS.map(([title, options]) => lines(title, options));
  const range = h("select", { "aria-label": "Time shown", onchange: () => turn() },
    Object.keys(RANGES).map((name) => h("option", {}, name)));
  const nothing = h("div");
  fill(main, top("Overview", range), wrong, tiles, nothing,
    h("div", { class: "charts" }, charts.map((chart) => chart.element)));

  const figures = async (signal) => {
    const [wide, step] = RANGES[range.value];
    const found = await rows(question(wide, step), { signal });
    const to = found.length ? Number(found.at(-1).t) : Date.now() / 1000;
    CHARTS.forEach(([, , wanted], i) => charts[i].show({
      from: to - wide,
      to,
      series: wanted.map(([name, figure, pick, rate]) => ({
        name, points: series(found, of(figure), pick, step, rate) })),
    }));
  };
  const count = (all, bad) => {
    const wrong = all.filter(bad).length;
    return [short(all.length), wrong ? `${wrong} not running` : all.length ? "all well" : ""];
  };
  const state = async (signal) => {
    const ask = (sql) => rows(sql, { signal });
    const shown = await ask("SHOW MATERIALIZED VIEWS");
    views.show(...count(shown, (v) => v.state !== "running"));
    const from = await ask("SHOW SOURCES");
    sources.show(...count(from, (x) => ["failed", "unavailable"].includes(x.state)));
    const into = await ask("SHOW SINKS");
    sinks.show(...count(into, (x) => x.state === "failed"));
    const [{ n }] = await ask("SELECT count(*) AS n FROM pg_tables WHERE schemaname NOT IN "
      + "('pg_catalog', 'information_schema', 'headwater')");
    relations.show(short(Number(n) + shown.length), "tables and views");
    const held = await ask("SHOW MEMORY");
    // The last rows are of everything together, and what it may be.
    const [all, most] = ["all", "limit"].map((kind) =>
      Number(held.find((row) => row.name === "" && row.kind === kind)?.bytes));
    memory.show(bytes(all), `${percent(all / most)} of the limit`);
    if (nothing.childElementCount) fill(nothing);
    if (!shown.length && !from.length && Number(n) === 0) {
      fill(nothing, empty("Nothing is defined yet. A table, a view over it, and rows:", FIRST));
    }
  };
  const show = (error) => fill(wrong, error && problem(error));
  const turn = (signal) => figures(signal).catch(show);
  const ends = [every(5000, figures, show), every(3000, state, show)];
  return () => ends.forEach((end) => end());
}

const FIRST = `CREATE TABLE payment (id bigint PRIMARY KEY, account text, amount numeric(12,2));
CREATE MATERIALIZED VIEW balance AS
  SELECT account, count(*) AS payments, sum(amount) AS total FROM payment GROUP BY account;
INSERT INTO payment VALUES (1, 'ann', 10.50), (2, 'bob', 7), (3, 'ann', -3);
SELECT * FROM balance ORDER BY account;`;
