// What brings rows: where each source stands, what it could not read, and what came late.

import { rows } from "./api.js";
import { button } from "./act.js";
import { empty, fill, h, problem, sqlLink, top } from "./dom.js";
import { quoted, short, whole } from "./format.js";
import { every } from "./poll.js";
import { badge, table } from "./table.js";
import { figures } from "./views.js";

const FIRST = `CREATE SOURCE clicks (at timestamp, page text,
    WATERMARK FOR at AS at - INTERVAL '5 seconds')
  WITH (connector = 'kafka', brokers = 'localhost:9092', topic = 'clicks') FORMAT JSON;`;

/** What is below one source: its splits, and what to do about what it could not read. */
function below(source) {
  const q = quoted(source.name);
  const splits = table([
    { title: "Split", cell: (x) => x.split },
    { title: "Next position", num: true, cell: (x) => x.next },
    { title: "In a checkpoint", num: true, cell: (x) => x.kept ?? "–" },
    { title: "Watermark", cell: (x) => x.watermark ?? "–" },
    { title: "Behind the first", cell: (x) => x.lag ?? "–" },
    { title: "", cell: (x) => x.holds === "yes" ? badge("holds", "the watermark waits for it")
      : x.state ? badge(x.state) : "" },
  ], { key: (x) => x.split, caption: `Splits of ${source.name}` });
  const late = h("div");
  const actions = h("p", { class: "row" },
    sqlLink("Rejected rows", `SELECT * FROM ${quoted(`${source.name}$errors`)} LIMIT 100;`, true),
    button("Retry rejected rows", () => `RETRY ERRORS ON ${q};`,
      `Decode anew what could not be read of ${source.name}`),
    button("Resume", () => `ALTER ${source.kind === "source" ? "SOURCE" : "TABLE"} ${q} RESUME;`,
      `Have ${source.name} try again where it stands`));
  const element = h("div", {}, actions, splits.element, late);
  const read = async () => {
    try {
      const found = await rows(`SHOW LATENESS ${q}`);
      const shown = table([
        { title: "Split", cell: (x) => x.split ?? "all" },
        { title: "Behind the latest row", cell: (x) => x.behind },
        { title: "Rows", num: true, cell: (x) => whole(x.rows) },
        { title: "Share", num: true, cell: (x) => x.percent },
      ], { caption: `How late rows of ${source.name} come` });
      shown.show(found);
      fill(late, h("h2", {}, "How late rows come"), shown.element);
    } catch {
      // It has no watermark: no row is late.
    }
  };
  return { element, read, show: (all) => splits.show(all) };
}

/** Where the splits of one source stand. */
function splitsOf(name, offsets, marks) {
  const of = offsets.filter((x) => x.relation === name);
  const mark = (split) => marks.find((m) => m.relation === name && m.split === split) ?? {};
  return of.map((x) => ({ ...mark(x.split), split: x.split, next: x.next, kept: x.kept }));
}

/** The page. */
export function sources(main) {
  const [wrong, list] = [h("div"), h("div")];
  const known = new Map();
  fill(main, top("Sources"), wrong, list);
  const card = (source) => {
    const parts = { state: h("span"), facts: h("span", { class: "soft num" }), why: h("div") };
    const inside = below(source);
    const details = h("details", {}, h("summary", {}, "Splits, rejected and late rows"),
      inside.element);
    details.addEventListener("toggle", () => details.open && inside.read());
    const element = h("section", { class: "card" },
      h("div", { class: "row" }, h("h2", {}, source.name), parts.state, parts.facts),
      parts.why, details);
    return { element, parts, inside };
  };
  return every(3000, async (signal) => {
    const ask = (sql) => rows(sql, { signal });
    const all = await ask("SHOW SOURCES");
    const [offsets, marks] = [await ask("SHOW OFFSETS"), await ask("SHOW WATERMARKS")];
    const rate = await figures(signal);
    if (!all.length) {
      fill(list, empty("No connector brings rows. One reads a topic of Kafka like this:", FIRST));
      known.clear();
      return;
    }
    if (!known.size) fill(list);
    for (const source of all) {
      if (!known.has(source.name)) {
        known.set(source.name, card(source));
        list.append(known.get(source.name).element);
      }
      const { parts, inside } = known.get(source.name);
      fill(parts.state, badge(source.state, source.detail));
      const rejected = rate.get(source.name)?.headwater_source_rejected_messages_total?.rate;
      const facts = [`${source.kind} by ${source.connector}`,
        source.lag === null ? null : `${whole(source.lag)} not yet read`,
        `${whole(source.rejected)} rejected${rejected ? ` (${short(rejected)}/s)` : ""}`];
      fill(parts.facts, facts.filter(Boolean).join(" · "));
      fill(parts.why, source.detail && h("div", { class: "note low" }, source.detail));
      inside.show(splitsOf(source.name, offsets, marks));
    }
    const names = new Set(all.map((source) => source.name));
    for (const [name, { element }] of known) {
      if (names.has(name)) continue;
      element.remove();
      known.delete(name);
    }
  }, (error) => fill(wrong, error && problem(error)));
}
