// What carries changes out: how far each sink has delivered, and what to do where one stands still.

import { rows } from "./api.js";
import { button } from "./act.js";
import { empty, fill, h, problem, top } from "./dom.js";
import { quoted, seconds, whole } from "./format.js";
import { every } from "./poll.js";
import { badge, table } from "./table.js";

const FIRST = `CREATE SINK balances FROM balance
  WITH (connector = 'kafka', brokers = 'localhost:9092', topic = 'balances') FORMAT JSON;`;

/** The page. */
export function sinks(main) {
  const [wrong, nothing] = [h("div"), h("div")];
  const shown = table([
    { title: "Sink", cell: (x) => x.name },
    { title: "Connector", cell: (x) => x.connector },
    { title: "State", cell: (x) => badge(x.state, x.detail) },
    { title: "Receiver", cell: (x) => x.broker ?? "–" },
    { title: "Delivered rows", num: true, cell: (x) => whole(x.rows) },
    { title: "Rows behind", num: true, cell: (x) => whole(x.lag_rows) },
    { title: "Time behind", num: true, cell: (x) => seconds(Number(x.lag_seconds)) },
    { title: "Skipped", num: true, cell: (x) => whole(x.skipped) },
    { title: "", cell: (x) => x.state === "failed" ? h("span", { class: "row" }, mend(x)) : "" },
  ], { key: (x) => `${x.name} ${x.state === "failed"}`, caption: "Sinks" });
  const card = h("div", { class: "card" }, shown.element);
  fill(main, top("Sinks"), wrong, nothing, card);
  return every(3000, async (signal) => {
    const all = await rows("SHOW SINKS", { signal });
    card.hidden = !all.length;
    fill(nothing, all.length ? null
      : empty("No sink carries changes out. One writes those of a view to Kafka:", FIRST));
    for (const x of all.filter((x) => x.detail)) {
      const level = x.state === "failed" ? "high" : "low";
      nothing.append(h("div", { class: `note ${level}` }, h("b", {}, x.name), `: ${x.detail}`));
    }
    shown.show(all);
  }, (error) => fill(wrong, error && problem(error)));
}

function mend(sink) {
  const q = quoted(sink.name);
  return [
    button("Resume", () => `ALTER SINK ${q} RESUME;`, `Have ${sink.name} try again`),
    button("Skip", () => `ALTER SINK ${q} SKIP;`,
      `Leave out the message that ${sink.name} could not deliver, and go on`),
  ];
}
