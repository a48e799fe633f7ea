// Where SQL is written: a text with completion, whose statements run by Ctrl+Enter.

import { fill, h } from "./dom.js";
import { offers, relations } from "./words.js";

/** Where a place in a text is on the screen, in pixels of the text's own box. */
function placeOf(area, at) {
  const style = getComputedStyle(area);
  const copy = h("div");
  for (const name of ["font", "padding", "border", "whiteSpace", "letterSpacing", "lineHeight",
    "tabSize", "overflowWrap"]) copy.style[name] = style[name];
  copy.style.position = "absolute";
  copy.style.visibility = "hidden";
  copy.style.whiteSpace = "pre-wrap";
  copy.style.width = `${area.clientWidth}px`;
  const mark = h("span", {}, "​");
  copy.append(area.value.slice(0, at), mark);
  area.parentNode.append(copy);
  const { offsetLeft: left, offsetTop: top, offsetHeight: high } = mark;
  copy.remove();
  return { left, top: top + high - area.scrollTop };
}

/** An editor; `run` is called with the text, or what is selected of it, and where that begins. */
export function editor(text, run) {
  let known = new Map();
  let [words, chosen, from] = [[], 0, 0];
  const list = h("ul", { class: "words", role: "listbox", id: "words", hidden: true });
  const area = h("textarea", { spellcheck: "false", autocapitalize: "off", autocomplete: "off",
    "aria-label": "SQL", "aria-controls": "words", "aria-autocomplete": "list", value: text });
  const element = h("div", { class: "editor" }, area, list);
  const close = () => {
    list.hidden = true;
    words = [];
  };
  const show = () => {
    list.hidden = !words.length;
    if (!words.length) return;
    fill(list, words.map((word, i) => h("li", { role: "option", id: `word-${i}`,
      "aria-selected": i === chosen, onmousedown: (event) => {
        event.preventDefault();
        chosen = i;
        take();
      } }, word.text, word.what && h("small", {}, word.what))));
    area.setAttribute("aria-activedescendant", `word-${chosen}`);
    const { left, top } = placeOf(area, from);
    list.style.top = `${Math.min(top, area.offsetHeight)}px`;
    list.style.left = `${Math.max(0, Math.min(left, area.clientWidth - list.offsetWidth - 8))}px`;
    list.children[chosen]?.scrollIntoView({ block: "nearest" });
  };
  const offer = (asked) => {
    const at = area.selectionStart;
    const found = offers(area.value, at, known);
    const typed = area.value.slice(found.from, at);
    // Nothing is offered that is written already, nor where nobody has begun a word.
    const fits = found.words.filter((word) => word.text !== typed);
    words = asked || typed || area.value[at - 1] === "." ? fits : [];
    [chosen, from] = [0, found.from];
    show();
  };
  const take = () => {
    area.setRangeText(words[chosen].text, from, area.selectionStart, "end");
    close();
    area.focus();
  };
  const start = () => {
    const [a, b] = [area.selectionStart, area.selectionEnd];
    close();
    run(a === b ? area.value : area.value.slice(a, b), a === b ? 0 : a);
  };
  area.addEventListener("input", () => offer(false));
  area.addEventListener("blur", close);
  area.addEventListener("click", close);
  area.addEventListener("keydown", (event) => {
    const keys = {
      ArrowDown: () => (chosen = (chosen + 1) % words.length, show()),
      ArrowUp: () => (chosen = (chosen + words.length - 1) % words.length, show()),
      Enter: take, Tab: take, Escape: close,
    };
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") start();
    else if (event.ctrlKey && event.key === " ") offer(true);
    else if (!list.hidden && keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
  const learn = () => relations().then((found) => (known = found)).catch(() => {});
  learn();
  return {
    element,
    area,
    start,
    learn,
    /** Marks the place of an error, counted in characters from 1. */
    mark(position, offset) {
      const letters = [...area.value.slice(offset)].slice(0, position - 1).join("").length + offset;
      const word = area.value.slice(letters).match(/^(\w+|"[^"]*"|'[^']*'|.|$)/s)[0];
      area.focus();
      area.setSelectionRange(letters, letters + word.length);
    },
  };
}

/** The line of a text that has a place, and a mark under it. */
export function excerpt(text, position) {
  const before = [...text].slice(0, position - 1).join("");
  const line = before.split("\n").length;
  const start = before.lastIndexOf("\n") + 1;
  const end = text.indexOf("\n", before.length);
  const shown = text.slice(start, end < 0 ? undefined : end);
  const column = before.length - start;
  const from = Math.max(0, column - 60);
  const head = `line ${line}: ${from ? "…" : ""}`;
  return h("pre", {}, head + shown.slice(from, from + 120), "\n",
    " ".repeat(head.length + column - from), h("span", { class: "at" }, "^"));
}
