// What outlives the process: checkpoints by themselves, savepoints by name.

import { rows } from "./api.js";
import { button, propose } from "./act.js";
import { fill, h, problem, top } from "./dom.js";
import { bytes, quoted, seconds, whole } from "./format.js";
import { every } from "./poll.js";
import { badge, table } from "./table.js";

const size = (name) => (x) => x[name] === null ? "–" : bytes(Number(x[name]));
const time = (name) => (x) => x[name] === null ? "–" : seconds(Number(x[name]) / 1000);
const moment = (name) => (x) => (x[name] ?? "–").slice(0, 19);

const CHECKPOINTS = [
  { title: "Number", num: true, cell: (x) => x.number },
  { title: "State", cell: (x) => badge(x.state, x.detail) },
  { title: "Of", cell: moment("clock") },
  { title: "Entries", num: true, cell: (x) => whole(x.entries) },
  { title: "Size", num: true, cell: size("bytes") },
  { title: "Written", num: true, cell: size("written") },
  { title: "Pause", num: true, cell: time("pause_ms") },
  { title: "Time to write", num: true, cell: time("write_ms") },
  { title: "Remarks", cell: (x) => x.detail ?? "" },
];

const SAVEPOINTS = [
  { title: "Name", cell: (x) => x.name },
  { title: "Made", cell: moment("made_at") },
  { title: "State of", cell: moment("clock") },
  { title: "Entries", num: true, cell: (x) => whole(x.entries) },
  { title: "Size", num: true, cell: size("bytes") },
  { title: "Of it alone", num: true, cell: size("own_bytes") },
  { title: "", cell: (x) => button("Drop", () => `DROP SAVEPOINT ${quoted(x.name)};`,
    `Let go of the savepoint ${x.name}`) },
];

/** The page. */
export function checkpoints(main) {
  const [wrong, none] = [h("div"), h("div")];
  const made = table(CHECKPOINTS, { key: (x) => x.number, caption: "Checkpoints", tall: true });
  const named = table(SAVEPOINTS, { key: (x) => x.name, caption: "Savepoints" });
  const name = h("input", { "aria-label": "Name of a savepoint", placeholder: "name", size: 14,
    required: true, spellcheck: "false" });
  const form = h("form", { class: "row", onsubmit: (event) => {
    event.preventDefault();
    propose(`CREATE SAVEPOINT ${quoted(name.value)};`, "Keep the state of now under a name");
  } }, name, h("button", {}, "Create savepoint"));
  const noSavepoints = h("p", { class: "soft" },
    "No savepoint is kept. One holds the state of a moment until it is dropped: make one ahead of ",
    "what you may want to undo.");
  fill(main, top("Checkpoints", button("Checkpoint now", () => "CHECKPOINT;",
    "Write what has changed since the last checkpoint")), wrong, none,
  h("section", { class: "card" }, h("h2", {}, "Savepoints"), form, noSavepoints, named.element),
  h("section", { class: "card" }, h("h2", {}, "Checkpoints"), made.element));
  return every(3000, async (signal) => {
    const all = await rows("SHOW CHECKPOINTS", { signal });
    const kept = await rows("SHOW SAVEPOINTS", { signal });
    fill(none, !all.length && h("div", { class: "note low" },
      "There is no checkpoint: serve with --data DIR, and what is defined and computed outlives ",
      "the process."));
    noSavepoints.hidden = kept.length > 0;
    made.element.hidden = !all.length;
    named.element.hidden = !kept.length;
    made.show(all);
    named.show(kept);
  }, (error) => fill(wrong, error && problem(error)));
}
