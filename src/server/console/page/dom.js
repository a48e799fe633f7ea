// Elements from JavaScript. Text is always text: nothing that the engine says becomes HTML.

const SVG = "http://www.w3.org/2000/svg";

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null) continue;
    // What aria- attributes say is a word in any case; others are there or not.
    if (value === false && !name.startsWith("aria-")) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else {
      const there = value === true && !name.startsWith("aria-");
      element.setAttribute(name, there ? "" : String(value));
    }
  }
}

function put(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false) element.append(child);
  }
  return element;
}

/** An element of HTML. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  set(element, attributes);
  return put(element, children);
}

/** An element of SVG. */
export function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  set(element, attributes);
  return put(element, children);
}

/** Has an element hold these and nothing else. */
export function fill(element, ...children) {
  element.replaceChildren();
  return put(element, children);
}

/** Changes a text only where it differs, so that what is selected stays so. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The head of a page, with what can be done there. */
export function top(title, ...actions) {
  return h("div", { class: "top" }, h("h1", {}, title), h("div", { class: "row" }, actions));
}

/** What is shown where there is nothing: what it would be, and what to do. */
export function empty(text, sql) {
  return h("div", { class: "card empty" }, h("p", {}, text), h("pre", {}, sql),
    h("p", {}, sqlLink("Open in SQL", sql)));
}

let handed = null;

/** A link to the editor with a text, which `run`s at once. The text is not in the address: what
 *  another site links to is never run. */
export function sqlLink(label, text, run = false) {
  return h("a", { class: "button", href: "#/sql", onclick: () => (handed = { text, run }) }, label);
}

/** What the editor was handed by a link, once. */
export function take() {
  const had = handed;
  handed = null;
  return had;
}

/** An error with what to do about it. */
export function problem(error) {
  return h("div", { class: "note high", role: "alert" },
    h("div", {}, error.code ? `${error.code}: ` : "", error.message),
    error.detail && h("div", { class: "soft" }, error.detail),
    error.hint && h("div", {}, `Hint: ${error.hint}`));
}
