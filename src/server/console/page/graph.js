// The picture of a view: its operators where the server has put them, what goes from one to the
// next, and figures that change in place.

import { fill, s, say } from "./dom.js";
import { bytes, percent, short } from "./format.js";

/** OK, LOW or HIGH, by the share of time that is waited. */
export function level(waiting, levels) {
  if (waiting === undefined || waiting <= levels.ok) return "OK";
  return waiting <= levels.low ? "LOW" : "HIGH";
}

/** Figures of each node per second, of two answers that are `seconds` apart. */
export function rates(now, before, time) {
  const old = new Map(before?.nodes.map((node) => [node.id, node]));
  return new Map(now.nodes.map((node) => {
    const then = old.get(node.id);
    const per = (name, by) => then && time > 0
      ? Math.max(0, node[name] - then[name]) / time / by : undefined;
    return [node.id, { in: per("rows_in", 1), out: per("rows_out", 1),
      busy: per("busy_us", 1e6 * now.workers), waiting: per("waiting_us", 1e6 * now.workers) }];
  }));
}

const perSecond = (value) => value === undefined ? "–" : `${short(value)}/s`;

function cut(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** Draws it; `pick` is called with the number of an operator that somebody wants to see. */
export function draw(picture, pick) {
  const { places, width, height, box: [wide, high] } = picture.layout;
  const at = new Map(places.map(([id, x, y]) => [id, { x, y }]));
  const parts = new Map();
  const wires = picture.edges.map((edge) => wire(edge, at.get(edge.from), at.get(edge.to),
    picture.layout.box));
  const boxes = picture.nodes.map((node) => {
    const { x, y } = at.get(node.id);
    const texts = [s("text", { class: "quiet", x: 14, y: 53 }), s("text", { x: 14, y: 69,
      class: "quiet" })];
    const title = node.reads ? `Read ${node.reads}` : node.name;
    const group = s("g", {
      class: `op ok${node.reads ? " door" : ""}`, tabindex: 0, role: "button",
      transform: `translate(${x - wide / 2} ${y - high / 2})`,
      onclick: () => pick(node.id),
      onkeydown: (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          pick(node.id);
        }
      },
    },
    s("title", {}, node.detail || title),
    s("rect", { class: "box", width: wide, height: high, rx: 6 }),
    s("rect", { class: "level", width: 5, height: high - 12, x: 4, y: 6, rx: 2.5 }),
    s("text", { class: "name", x: 14, y: 19 }, cut(title, 28)),
    s("text", { x: 14, y: 36 }, cut(node.detail || "its rows as they come", 32)),
    texts);
    parts.set(node.id, { group, texts, title });
    return group;
  });
  const element = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": "Operators, from what is read at the top to the answer at the bottom" },
  wires.map((w) => w.line), wires.map((w) => w.label), boxes);
  return { element, width, height, parts, wires };
}

function wire(edge, from, to, [wide, high]) {
  const [x1, y1, x2, y2] = [from.x, from.y + high / 2, to.x, to.y - high / 2];
  const bend = Math.max(18, Math.abs(y2 - y1) / 2);
  const back = edge.outlet === "feedback";
  const side = wide / 2;
  const path = back
    ? `M${from.x + side} ${from.y}c66 0 66 ${to.y - from.y} ${to.x - from.x} ${to.y - from.y}`
    : `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2 - 5}`;
  const [tx, ty] = back ? [to.x + side, to.y] : [x2, y2];
  const tip = back ? `M${tx} ${ty}l7 -4v8z` : `M${tx} ${ty}l-4 -7h8z`;
  const label = s("g");
  const middle = { x: (x1 + x2) / 2, y: (y1 + y2) / 2 + 4 };
  return {
    edge,
    line: s("g", {}, s("path", { class: `wire ${edge.outlet}`, d: path }),
      s("path", { class: "tip", d: tip })),
    label,
    middle,
  };
}

/** What stands at an edge. */
function words(edge) {
  const said = [];
  if (edge.exchange) said.push(edge.exchange.length ? `by ${edge.exchange.join(", ")}` : "to one");
  if (edge.outlet !== "rows") said.push(edge.outlet);
  const [mark] = edge.watermarks;
  if (mark) said.push(`${mark.at}${mark.held_by ? `, held by ${mark.held_by}` : ""}`);
  return said;
}

/** Shows figures in a picture. */
export function update(drawn, picture, rate) {
  for (const node of picture.nodes) {
    const part = drawn.parts.get(node.id);
    if (!part) continue;
    const now = rate.get(node.id);
    const state = node.tables.reduce((sum, table) => sum + table.bytes, 0);
    const held = node.tables.reduce((sum, table) => sum + table.rows, 0);
    const word = level(now.waiting, picture.levels);
    // What a door hands on is not counted there, but where it goes.
    const next = picture.edges.find((edge) => edge.from === node.id);
    const flow = node.reads ? perSecond(rate.get(next?.to)?.in)
      : `${perSecond(now.in)} → ${perSecond(now.out)}`;
    say(part.texts[0], node.reads ? flow : `${flow}, ${percent(now.busy)} busy`);
    say(part.texts[1], node.tables.length ? `holds ${short(held)} rows, ${bytes(state)}` : "");
    part.group.setAttribute("class", `op ${word.toLowerCase()}${node.reads ? " door" : ""}`);
    part.group.setAttribute("aria-label", `${part.title}, ${flow}, back-pressure ${word}`);
  }
  const edges = new Map(picture.edges.map((e) => [`${e.from} ${e.to} ${e.outlet}`, e]));
  for (const { edge, label, middle } of drawn.wires) {
    const now = edges.get(`${edge.from} ${edge.to} ${edge.outlet}`);
    const said = now ? words(now) : [];
    const shown = said.join("\n");
    if (label.dataset.said === shown) continue;
    label.dataset.said = shown;
    const line = (text, i, more) => s("text", { class: `wire-text${more}`,
      "text-anchor": "middle", x: middle.x, y: middle.y + (i - (said.length - 1) / 2) * 13 }, text);
    fill(label, said.map((text, i) => [line(text, i, " back"), line(text, i, "")]));
  }
}
