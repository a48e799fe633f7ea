// Charts of lines over time, and of bars; all of one size, so that nothing moves when they change.

import { fill, h, s, say } from "./dom.js";
import { clock, short } from "./format.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [360, 150, 46, 20, 8];
const COLOURS = 6;

/** The next round number that is not below. */
function round(value) {
  if (!(value > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((by) => by * step).find((n) => n >= value * 0.9999);
}

/** Lines over time. `show({ series: [{ name, points: [[time, value]] }], from, to })`; a point
 *  whose value is null is a gap. */
export function lines(title, { unit = short, hint } = {}) {
  const now = h("b", {}, "–");
  const plot = s("g");
  const mark = s("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, hidden: true });
  const picture = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" }, plot, mark);
  const names = h("div", { class: "names" });
  const element = h("section", { class: "card chart", title: hint }, h("h2", {}, title, now),
    picture, names);
  let shown = null;
  const wide = WIDTH - LEFT - 4;
  const x = (time) => LEFT + (time - shown.from) / (shown.to - shown.from || 1) * wide;
  const read = (index, at) => {
    const { points } = shown.series[index];
    const near = points.reduce((best, p) => p[1] === null ? best
      : !best || Math.abs(p[0] - at) < Math.abs(best[0] - at) ? p : best, null);
    return near && near[1];
  };
  const label = (at) => {
    const values = shown.series.map((line, i) => [line.name, read(i, at ?? shown.to), i]);
    // One line has its name and newest value above; what the pointer is at stands here.
    const several = shown.series.length > 1;
    fill(names, at ? h("span", { class: "num" }, clock(at)) : null, several || at
      ? values.map(([name, value, i]) => h("span", {}, several
        ? h("i", { class: `f${i % COLOURS}` }) : null, ` ${name} `,
      h("span", { class: "num" }, unit(value)))) : null);
    return values;
  };
  const show = (next) => {
    shown = next;
    shown.series = shown.series.slice(0, COLOURS);
    const all = shown.series.flatMap((line) => line.points.map((p) => p[1] ?? 0));
    const most = round(Math.max(0, ...all));
    const y = (value) => HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP);
    const path = (points) => points.reduce(([text, pen], [time, value]) => value === null
      ? [text, "M"] : [`${text}${pen}${x(time).toFixed(1)} ${y(value).toFixed(1)}`, "L"],
    ["", "M"])[0];
    fill(plot,
      [0, most / 2, most].map((v) => [
        s("line", { class: "axis", x1: LEFT, x2: WIDTH - 4, y1: y(v), y2: y(v) }),
        s("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, unit(v))]),
      s("text", { x: LEFT, y: HEIGHT - 5 }, clock(shown.from)),
      s("text", { x: WIDTH - 4, y: HEIGHT - 5, "text-anchor": "end" }, clock(shown.to)),
      shown.series.map((line, i) =>
        s("path", { class: `plot s${i % COLOURS}`, d: path(line.points) })));
    const values = label();
    const last = values.map(([, value]) => value).filter((value) => value !== null);
    const sum = last.length === 1 ? last[0] : null;
    say(now, last.length === 1 ? unit(sum) : "");
    picture.setAttribute("aria-label", `${title}: ${values.map(([name, value]) =>
      `${name} ${unit(value)}`).join(", ") || "no figures yet"}`);
  };
  const point = (event) => {
    if (!shown) return;
    const box = picture.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * WIDTH;
    const share = Math.min(1, Math.max(0, (at - LEFT) / (WIDTH - LEFT - 4)));
    const time = shown.from + share * (shown.to - shown.from);
    mark.removeAttribute("hidden");
    mark.setAttribute("x1", x(time));
    mark.setAttribute("x2", x(time));
    label(time);
  };
  picture.addEventListener("pointermove", point);
  picture.addEventListener("pointerleave", () => {
    mark.setAttribute("hidden", "");
    if (shown) label();
  });
  return { element, show };
}

/** The height of a chart of a result, and the room of a word under it. */
const [HIGH, WORD] = [320, 135];

/** A chart of a result: `labels`, and `series` of numbers for them; as `bars` or `lines`. A name
 *  below it is pressed to leave its numbers out: `toggle` is handed it. It is `wide` pixels. */
export function ofResult(kind, labels, every, axis, { left, toggle, wide }) {
  const series = every.map((line) => left.has(line.name) ? { ...line, values: [] } : line);
  const drawnOnes = series.filter((line) => line.values.length).length || 1;
  const all = series.flatMap((line) => line.values).filter((v) => v !== null);
  const [least, most] = [Math.min(0, ...all), Math.max(0, ...all)];
  const [low, high] = [least < 0 ? -round(-least) : 0, most > 0 || least === 0 ? round(most) : 0];
  const y = (v) => HIGH - 40 - (v - low) / (high - low) * (HIGH - 60);
  const room = (wide - 70) / labels.length;
  const x = (i) => 62 + (i + 0.5) * room;
  const marks = Math.max(1, Math.ceil(labels.length / Math.floor((wide - 70) / WORD)));
  const drawn = kind === "bars" ? series.flatMap((line, n) => line.values.map((v, i) => {
    const width = Math.max(0.6, room * 0.8 / drawnOnes);
    const before = series.slice(0, n).filter((other) => other.values.length).length;
    const from = x(i) - room * 0.4 + before * width;
    return v === null ? null : s("rect", { class: `f${n % COLOURS}`, x: from, width,
      y: Math.min(y(v), y(0)), height: Math.max(0.5, Math.abs(y(v) - y(0))) },
    s("title", {}, `${labels[i]}: ${line.name} ${v}`));
  })) : series.map((line, n) => s("path", { class: `plot s${n % COLOURS}`,
    d: line.values.reduce(([text, pen], v, i) => v === null ? [text, "M"]
      : [`${text}${pen}${x(i).toFixed(1)} ${y(v).toFixed(1)}`, "L"], ["", "M"])[0] }));
  return h("div", { class: "chart result" },
    s("svg", { viewBox: `0 0 ${wide} ${HIGH}`, role: "img",
      "aria-label": `${series.map((line) => line.name).join(", ")} by ${axis}` },
    [low, (low + high) / 2, high].map((v) => [
      s("line", { class: "axis", x1: 60, x2: wide - 8, y1: y(v), y2: y(v) }),
      s("text", { x: 54, y: y(v) + 4, "text-anchor": "end" }, short(v))]),
    labels.map((text, i) => i % marks ? null
      : s("text", { x: x(i), y: HIGH - 22, "text-anchor": "middle" }, text.slice(0, 19))),
    s("text", { x: wide / 2, y: HIGH - 4, "text-anchor": "middle" }, axis),
    drawn),
    h("div", { class: "names" }, series.map((line, i) =>
      h("button", { type: "button", "aria-pressed": !left.has(line.name),
        onclick: () => toggle(line.name) }, h("i", { class: `f${i % COLOURS}` }),
      ` ${line.name}`))));
}
