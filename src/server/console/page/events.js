// What has happened: the newest of headwater.events.

import { rows } from "./api.js";
import { fill, h, problem, top } from "./dom.js";
import { literal } from "./format.js";
import { every } from "./poll.js";
import { badge, table } from "./table.js";

const ANY = "any";
const SEVERITIES = [ANY, "error", "warning", "info"];
const KINDS = [ANY, "server", "definition", "relation", "source", "sink", "checkpoint", "login",
  "statement"];

/** The page. */
export function events(main) {
  const wrong = h("div");
  const none = h("p", { class: "soft", hidden: true }, "Nothing of this has happened.");
  const again = () => turn().catch(() => {});
  const choose = (label, values) => h("select", { "aria-label": label, onchange: again },
    values.map((value) => h("option", { value }, value === ANY ? `any ${label}` : value)));
  const [severity, kind] = [choose("severity", SEVERITIES), choose("kind", KINDS)];
  const shown = table([
    { title: "When", cell: (x) => x.at.slice(0, 19) },
    { title: "Of", cell: (x) => x.object },
    { title: "What", cell: (x) => x.message },
    { title: "Severity", cell: (x) => badge(x.severity) },
    { title: "Kind", cell: (x) => x.kind },
  ], { key: (x) => x.id, caption: "Events" });
  fill(main, top("Events", severity, kind), wrong,
    h("section", { class: "card" }, none, shown.element));
  const turn = async (signal) => {
    const wanted = [["severity", severity.value], ["kind", kind.value]]
      .filter(([, value]) => value !== ANY).map(([name, value]) => `${name} = ${literal(value)}`);
    const where = wanted.length ? `WHERE ${wanted.join(" AND ")}` : "";
    const found = await rows(`SELECT id, at, severity, kind, object, message
      FROM headwater.events ${where} ORDER BY id DESC LIMIT 300`, { signal });
    none.hidden = found.length > 0;
    shown.element.hidden = !found.length;
    shown.show(found);
  };
  return every(5000, turn, (error) => fill(wrong, error && problem(error)));
}
