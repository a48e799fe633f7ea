// SQL by hand: an editor, and what its statements come to.

import { run } from "./api.js";
import { fill, h, problem, say, take } from "./dom.js";
import { editor, excerpt } from "./editor.js";
import { live } from "./live.js";
import { done, notice, result } from "./result.js";

const KEY = "sql";
const FIRST = "SELECT * FROM headwater.events ORDER BY id DESC LIMIT 20;";

/** What was written last, for as long as the tab is there. */
function kept() {
  try {
    return sessionStorage.getItem(KEY) ?? FIRST;
  } catch {
    return FIRST;
  }
}

function keep(text) {
  try {
    sessionStorage.setItem(KEY, text);
  } catch {
    // It is gone with the page.
  }
}

/** The page. */
export function sql(main) {
  const handed = take();
  const results = h("div", { "aria-live": "off" });
  const status = h("span", { class: "status soft num", role: "status" });
  let running = null;
  const stop = h("button", { type: "button", disabled: true,
    onclick: () => running?.abort() }, "Cancel");
  const start = async (text, offset) => {
    running?.abort();
    const mine = new AbortController();
    running = mine;
    stop.disabled = false;
    keep(write.area.value);
    fill(results);
    say(status, "running");
    let part = null;
    let failed = null;
    const on = (line) => {
      if (line.columns) {
        part = line.endless ? live(line.columns) : result(line.columns);
        results.append(part.element);
        if (line.endless) say(status, "following, until canceled");
      } else if (line.rows instanceof Array) part.add(line.rows);
      else if (line.notice) results.append(notice(line.notice));
      else if (line.done !== undefined && part) part = part.end(line);
      else if (line.done !== undefined) results.append(done(line));
    };
    try {
      await run(text, on, { signal: mine.signal });
    } catch (error) {
      failed = error;
    }
    part?.end?.({ done: "ended", rows: 0, ms: "–" });
    if (running !== mine) return;
    running = null;
    stop.disabled = true;
    if (failed?.name === "AbortError") say(status, "canceled");
    else if (failed) {
      say(status, "failed");
      results.append(problem(failed), failed.position ? excerpt(text, failed.position) : "");
      if (failed.position) write.mark(failed.position, offset);
    } else say(status, "done");
    write.learn();
  };
  const write = editor(handed?.text ?? kept(), start);
  fill(main, h("section", { class: "card" }, write.element, h("p"),
    h("div", { class: "row" },
      h("button", { type: "button", class: "main", onclick: () => write.start() }, "Run"), stop,
      status, h("span", { class: "soft keys" }, h("kbd", {}, "Ctrl"), " ", h("kbd", {}, "Enter"),
        " runs, ", h("kbd", {}, "Ctrl"), " ", h("kbd", {}, "Space"), " completes"))),
  results);
  if (handed?.run) write.start();
  else write.area.focus();
  return () => {
    keep(write.area.value);
    running?.abort();
  };
}
