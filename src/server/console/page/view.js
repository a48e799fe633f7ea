// One view: the picture of its operators, and of each what it has done.

import { get, rows } from "./api.js";
import { button } from "./act.js";
import { fill, h, problem, say, sqlLink, top } from "./dom.js";
import { bytes, percent, quoted, short, whole } from "./format.js";
import { draw, level, rates, update } from "./graph.js";
import { every } from "./poll.js";

const lines = (found) => found.map((row) => row["query plan"]).join("\n");

/** What is asked of a view as text, by the word on the button. */
const TEXTS = {
  "EXPLAIN ANALYZE": async (name) => lines(await rows(`EXPLAIN ANALYZE ${name}`)),
  "What it waits for": async (name) => lines(await rows(`EXPLAIN WAIT ${name}`)),
  "State": async (name) => lines(await rows(`EXPLAIN STATE ${name}`)),
  "Definition": async (name) =>
    (await rows(`SHOW CREATE MATERIALIZED VIEW ${name}`))[0]?.create_sql ?? "",
};

/** The lines of EXPLAIN ANALYZE of one operator: its title is one that is not indented. */
function partOf(text, place) {
  let at = -1;
  const found = text.split("\n").filter((line) => {
    if (!line.startsWith("    ")) at += 1;
    return at === place;
  });
  return found.join("\n");
}

/** Which split of a relation holds its watermark, in words; nothing where there are no splits. */
async function holderOf(relation) {
  const of = (await rows("SHOW WATERMARKS")).filter((mark) => mark.relation === relation);
  const [split] = of.filter((mark) => mark.split !== null && mark.holds === "yes");
  if (!split) return null;
  const behind = split.lag && split.lag !== "00:00:00" ? `, ${split.lag} behind the first` : "";
  return `split ${split.split} of ${relation}, at ${split.watermark}${behind}`;
}

/** The figures of an operator. */
function facts(node, rate, picture) {
  const now = rate.get(node.id);
  const workers = picture.workers === 1 ? "the worker" : `${picture.workers} workers`;
  const next = picture.edges.find((edge) => edge.from === node.id);
  const pairs = node.reads ? [["Rows", `${short(rate.get(next?.to)?.in)}/s`]] : [
    ["Changes in", `${whole(node.rows_in)} (${short(now.in)}/s)`],
    ["Changes out", `${whole(node.rows_out)} (${short(now.out)}/s)`],
    ["Busy", `${percent(now.busy)} of the time of ${workers}`],
    ["Waiting", `${percent(now.waiting)}, back-pressure ${level(now.waiting, picture.levels)}`],
  ];
  for (const edge of picture.edges.filter((e) => e.to === node.id)) {
    const from = picture.nodes.find((other) => other.id === edge.from);
    const by = edge.exchange;
    pairs.push(["From", `${from?.reads ?? from?.name}: ${!by ? "rows stay on their worker"
      : by.length ? `rows go to the worker of ${by.join(", ")}` : "rows go to one worker"}`]);
  }
  for (const mark of next?.watermarks ?? []) {
    pairs.push([`Watermark of ${mark.column}`,
      mark.at + (mark.held_by ? `, held by ${mark.held_by}` : "")]);
  }
  for (const table of node.tables) {
    pairs.push([`State ${table.name}`, `${whole(table.rows)} rows, ${bytes(table.bytes)}`
      + (table.on_disk ? `, ${whole(table.on_disk)} rows on the disk` : "")]);
  }
  return h("dl", { class: "facts" }, pairs.map(([name, text]) =>
    [h("dt", {}, name), h("dd", {}, text)]));
}

/** What can be done with a view; rows that it has put aside are there where they are `kept`. */
function actions(name, kept) {
  const q = quoted(name);
  return [
    sqlLink("Rows", `SELECT * FROM ${q} LIMIT 100;`, true),
    sqlLink("Follow", `SUBSCRIBE TO ${q};`, true),
    ...Object.entries({ "Failed rows": `${name}$errors`, "Late rows": `${name}$late` })
      .filter(([, aside]) => kept.has(aside))
      .map(([label, aside]) => sqlLink(label, `SELECT * FROM ${quoted(aside)} LIMIT 100;`, true)),
  ];
}

const LEGEND = h("p", { class: "legend" }, "Back-pressure:",
  ["ok", "low", "high"].map((word) => h("span", {}, h("i", { class: word }),
    ` ${word.toUpperCase()}`)),
  h("span", {}, "on the lines: by what rows are spread over workers, and the watermark"));

/** The scale at which names of operators can be read. */
const READABLE = 0.8;

/** The page of a view. */
export function view(main, name) {
  const wrong = h("div");
  const repair = h("div");
  const canvas = h("div", { class: "picture card", tabindex: 0, role: "region",
    "aria-label": `Operators of ${name}` });
  const figures = h("div", { "aria-live": "polite" }, h("p", { class: "soft" },
    "Choose an operator for its figures."));
  const text = h("pre", { tabindex: 0 });
  let [picture, drawn, before, seen, chosen, scale] = [null, null, null, 0, null, 1];
  let [told, holder] = [null, null];
  let rate = new Map();
  const size = (by) => {
    scale = Math.min(2, Math.max(0.25, by));
    drawn?.element.setAttribute("width", drawn.width * scale);
    drawn?.element.setAttribute("height", drawn.height * scale);
  };
  const fit = (least = 0) => {
    size(Math.min(1, Math.max(least, (canvas.clientWidth - 30) / drawn.width)));
    canvas.scrollLeft = (canvas.scrollWidth - canvas.clientWidth) / 2;
  };
  const show = async () => {
    const node = picture?.nodes.find((other) => other.id === chosen);
    if (!node) return;
    const heading = node.reads ? `Read ${node.reads}` : node.name;
    const more = told && node.place !== null ? partOf(told, node.place) : "";
    fill(figures, h("h2", {}, heading), node.detail && h("p", {}, h("code", {}, node.detail)),
      facts(node, rate, picture), more && h("pre", {}, more),
      node.reads && holder && h("p", {}, `The watermark waits for ${holder}.`));
  };
  const pick = (id) => {
    chosen = id;
    for (const [other, part] of drawn.parts) {
      part.group.setAttribute("aria-pressed", other === id);
    }
    holder = null;
    const { reads } = picture.nodes.find((node) => node.id === id);
    const asked = reads ? holderOf(reads).then((found) => (holder = found))
      : rows(`EXPLAIN ANALYZE ${quoted(name)}`).then((found) => (told = lines(found)));
    // Without it there are the figures.
    asked.then(show, () => {});
    show();
  };
  const read = async (which) => {
    for (const b of tabs.children) b.setAttribute("aria-pressed", b.textContent === which);
    try {
      say(text, await TEXTS[which](quoted(name)));
    } catch (error) {
      say(text, [error.message, error.hint].filter(Boolean).join("\n"));
    }
  };
  const tabs = h("div", { class: "row" }, Object.keys(TEXTS).map((which) =>
    h("button", { type: "button", "aria-pressed": false, onclick: () => read(which) }, which)));
  const buttons = h("div", { class: "row" }, actions(name, new Set()));
  rows("SHOW MEMORY").then((held) =>
    fill(buttons, actions(name, new Set(held.map((row) => row.name))))).catch(() => {});
  fill(main, top(name, buttons), wrong, repair,
    h("div", { class: "split" },
      h("div", {},
        h("div", { class: "row" },
          h("button", { type: "button", onclick: () => size(scale * 1.25) }, "Larger"),
          h("button", { type: "button", onclick: () => size(scale / 1.25) }, "Smaller"),
          h("button", { type: "button", onclick: () => drawn && fit() }, "Fit")),
        LEGEND.cloneNode(true), canvas),
      h("div", { class: "card" }, figures)),
    h("div", { class: "card" }, tabs, h("p"), text));
  read("EXPLAIN ANALYZE");
  const path = `/api/picture?view=${encodeURIComponent(name)}`;
  const stop = every(2000, async (signal) => {
    const next = await get(drawn ? `${path}&places=false` : path, signal);
    const now = performance.now() / 1000;
    const same = picture && picture.nodes.length === next.nodes.length
      && picture.nodes.every((node, i) => node.id === next.nodes[i].id);
    if (drawn && !same) [drawn, before] = [null, null];
    rate = rates(next, before, now - seen);
    [picture, before, seen] = [next, next, now];
    if (!drawn && next.layout) {
      drawn = draw(next, pick);
      fill(canvas, drawn.element);
      // It begins so large that it can be read, on a telephone as well.
      fit(READABLE);
    } else if (!drawn) {
      fill(canvas, h("p", {}, `It has ${next.nodes.length} operators: more than a picture shows.`));
    }
    if (drawn) update(drawn, next, rate);
    if (chosen !== null) show();
  }, (error) => fill(wrong, error && problem(error)));
  const look = every(5000, async (signal) => {
    const all = await rows("SHOW MATERIALIZED VIEWS", { signal });
    const { detail } = all.find((v) => v.name === name) ?? {};
    if (repair.dataset.detail === (detail ?? "")) return;
    repair.dataset.detail = detail ?? "";
    const sql = `ALTER MATERIALIZED VIEW ${quoted(name)} RESUME;`;
    fill(repair, detail && h("div", { class: "note high" }, h("p", {}, detail),
      button("Build it anew", () => sql, `Build ${name} anew from what it reads`)));
  });
  return () => (stop(), look());
}
