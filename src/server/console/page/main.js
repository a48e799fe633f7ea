// The frame of all pages: who is there, where one is, and what is shown.

import { get, post } from "./api.js";
import { fill, h, problem } from "./dom.js";
import { signIn } from "./sign_in.js";
import { themes } from "./theme.js";
import { checkpoints } from "./checkpoints.js";
import { events } from "./events.js";
import { overview } from "./overview.js";
import { roles } from "./roles.js";
import { sinks } from "./sinks.js";
import { sources } from "./sources.js";
import { sql } from "./sql.js";
import { view } from "./view.js";
import { views } from "./views.js";

const PAGES = [
  ["overview", "Overview", overview],
  ["views", "Views", views],
  ["sources", "Sources", sources],
  ["sinks", "Sinks", sinks],
  ["checkpoints", "Checkpoints", checkpoints],
  ["roles", "Roles", roles],
  ["events", "Events", events],
  ["sql", "SQL", sql],
];

const element = (id) => document.getElementById(id);
const [head, main, nav] = [element("head"), element("main"), element("nav")];
let end = null;
let role = null;

function leave() {
  end?.();
  end = null;
}

/** Where the address leads: a page, and what of it is shown. */
function place() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  return { name: name || "overview", of: rest.length ? decodeURIComponent(rest.join("/")) : null };
}

function show() {
  leave();
  const { name, of } = place();
  const [, title, page] = PAGES.find(([known]) => known === name) ?? PAGES[0];
  for (const link of nav.children) {
    const here = link.getAttribute("href") === `#/${name}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${of ?? title} – Headwater`;
  fill(main);
  try {
    end = name === "views" && of ? view(main, of) : page(main);
  } catch (error) {
    fill(main, problem(error));
  }
}

function ask() {
  leave();
  head.hidden = true;
  document.title = "Sign in – Headwater";
  signIn(main, (name) => begin(name, true));
}

function begin(name, signedIn) {
  role = name;
  head.hidden = false;
  element("role").textContent = role;
  element("sign-out").hidden = !signedIn;
  show();
  main.focus({ preventScroll: true });
}

async function start() {
  fill(nav, PAGES.map(([name, title]) => h("a", { href: `#/${name}` }, title)));
  themes(element("theme"));
  element("skip").addEventListener("click", () => main.focus());
  element("sign-out").addEventListener("click", async () => {
    await post("/api/sign-out", {}).catch(() => {});
    ask();
  });
  addEventListener("hashchange", () => head.hidden || show());
  addEventListener("signed-out", () => head.hidden || ask());
  try {
    const who = await get("/api/who");
    if (who.role) begin(who.role, who.authenticates);
    else ask();
  } catch (error) {
    fill(main, problem(error));
  }
}

start();
