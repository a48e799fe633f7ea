// Buttons that change something: the statement is shown, and runs when somebody says so.

import { act } from "./api.js";
import { fill, h, problem } from "./dom.js";

/** Shows a statement and what it does; runs it on a word. `after` is handed its rows. */
export function propose(sql, what, after) {
  const said = h("div", { "aria-live": "polite" });
  const go = h("button", { type: "button", class: "main" }, "Run it");
  const close = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const dialog = h("dialog", { class: "card" }, h("h2", {}, what), h("pre", {}, sql), said,
    h("p", { class: "row" }, go, close));
  go.addEventListener("click", async () => {
    go.disabled = true;
    try {
      const rows = await act(sql);
      const told = rows.map((row) => Object.entries(row)
        .map(([name, value]) => `${name}: ${value ?? "–"}`).join(", ")).join("\n");
      fill(said, h("div", { class: "note" }, told || "Done."));
      go.hidden = true;
      close.textContent = "Close";
      close.focus();
      after?.(rows);
    } catch (error) {
      fill(said, problem(error));
      go.disabled = false;
    }
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** A button that proposes a statement. */
export function button(label, sql, what, after) {
  return h("button", { type: "button", onclick: () => propose(sql(), what, after) }, label);
}
