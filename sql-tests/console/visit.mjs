// The console in a browser, by keyboard: signs in, runs a query, opens the picture of a view; then
// every page in light and dark, wide and narrow. Ends with what was wrong, a line each.
//
// node visit.mjs URL ROLE PASSWORD VIEW MODULES [PICTURES]

import { createRequire } from "node:module";
import { join } from "node:path";

const [url, role, password, view, modules, pictures] = process.argv.slice(2);
const puppeteer = createRequire(join(modules, "package.json"))("puppeteer-core");
const wrong = [];
const PATIENCE = 30_000;

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
});
const page = await browser.newPage();
page.setDefaultTimeout(PATIENCE);
let where = "sign-in";
page.on("console", (said) => {
  if (["error", "warn"].includes(said.type())) wrong.push(`${where}: console: ${said.text()}`);
});
page.on("pageerror", (error) => wrong.push(`${where}: ${error.message}`));
page.on("requestfailed", (request) => {
  // Questions of a page that was left end with it.
  const why = request.failure()?.errorText;
  if (why !== "net::ERR_ABORTED") wrong.push(`${where}: ${request.url()}: ${why}`);
});
page.on("response", (answer) => {
  if (answer.status() >= 400) wrong.push(`${where}: ${answer.url()}: ${answer.status()}`);
});

const focused = () => page.evaluate(() => {
  const at = document.activeElement;
  return { tag: at.tagName.toLowerCase(), text: at.textContent.trim(), class: String(
    at.getAttribute("class")) };
});

/** Presses Tab until the focus is where it should be. */
async function tabTo(what, fits, key = "Tab") {
  for (let i = 0; i < 80; i += 1) {
    if (fits(await focused())) return;
    if (key === "Shift") await page.keyboard.down("Shift");
    await page.keyboard.press("Tab");
    if (key === "Shift") await page.keyboard.up("Shift");
  }
  throw new Error(`no Tab leads to ${what}`);
}

async function byKeyboard() {
  await page.setViewport({ width: 1280, height: 900 });
  await page.goto(url, { waitUntil: "networkidle0" });
  await page.waitForSelector("form");
  await page.keyboard.type(role);
  await page.keyboard.press("Tab");
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#head:not([hidden])");
  where = "keyboard: sql";
  await tabTo("SQL", (at) => at.tag === "a" && at.text === "SQL", "Shift");
  await page.keyboard.press("Enter");
  await page.waitForSelector("textarea");
  await tabTo("the editor", (at) => at.tag === "textarea");
  await page.keyboard.down("Control");
  await page.keyboard.press("a");
  await page.keyboard.up("Control");
  // Completion: the first letters of the view, and Enter takes what is offered.
  await page.keyboard.type(`SELECT 40 + 2 AS answer FROM ${view.slice(0, -1)}`);
  await page.waitForSelector(".words:not([hidden]) li");
  await page.keyboard.press("Enter");
  await page.keyboard.type(" LIMIT 1;");
  await page.keyboard.press("Escape");
  await page.keyboard.down("Control");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Control");
  await page.waitForFunction(() => [...document.querySelectorAll("td")]
    .some((cell) => cell.textContent === "42"));
  where = "keyboard: views";
  await tabTo("Views", (at) => at.tag === "a" && at.text === "Views", "Shift");
  await page.keyboard.press("Enter");
  await page.waitForFunction((name) => [...document.querySelectorAll("td a")]
    .some((link) => link.textContent === name), {}, view);
  await tabTo("the view", (at) => at.tag === "a" && at.text === view);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".op");
  await tabTo("an operator", (at) => at.tag === "g");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".facts dd");
}

/** Follows a view until it is canceled; is told where a statement is wrong. */
async function followsAndFails() {
  where = "follow";
  await page.goto(`${url}#/sql`);
  await page.waitForSelector("textarea");
  const run = async (text) => {
    await page.$eval("textarea", (area, sql) => (area.value = sql), text);
    await page.click("button.main");
  };
  const status = (word) => page.waitForFunction((wanted) =>
    document.querySelector("[role=status]").textContent.startsWith(wanted), {}, word);
  await run(`SUBSCRIBE TO ${view};`);
  await status("following");
  await page.waitForSelector("tbody tr");
  const [cancel] = await page.$$("xpath/.//button[text()='Cancel']");
  await cancel.click();
  await status("canceled");
  await run("SELECT 1,\n  nothing");
  await status("failed");
  const marked = await page.$eval("textarea", (area) =>
    area.value.slice(area.selectionStart, area.selectionEnd));
  if (marked !== "nothing") wrong.push(`${where}: "${marked}" is marked`);
}

/** Makes a checkpoint by a button, which shows its statement first. */
async function changes() {
  where = "checkpoint";
  await page.goto(`${url}#/checkpoints`);
  const button = await page.waitForSelector("xpath/.//button[text()='Checkpoint now']");
  await button.click();
  await page.waitForSelector("dialog[open]");
  await page.click("dialog button.main");
  await page.waitForSelector("dialog .note:not(.high)");
  await page.keyboard.press("Escape");
}

const PAGES = ["overview", "views", `views/${view}`, "sources", "sinks", "checkpoints", "roles",
  "events", "sql"];

/** What each page looks like before it is looked at. */
async function prepare(name) {
  if (name === "sql") {
    await page.waitForSelector("textarea");
    await page.$eval("textarea", (area, of) => (area.value = `SELECT * FROM ${of} LIMIT 40;`), view);
    await page.click("button.main");
    await page.waitForSelector("tbody tr");
    const [bars] = await page.$$("xpath/.//button[text()='Bars']");
    await bars?.click();
  } else if (name.startsWith("views/")) {
    await page.waitForSelector(".op");
    await page.click(".op:last-of-type");
  } else if (name === "sources") {
    await page.waitForSelector("summary");
    await page.click("summary");
  }
}

async function allPages() {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    for (const width of [1280, 360]) {
      await page.setViewport({ width, height: width === 360 ? 740 : 900 });
      for (const name of PAGES) {
        where = `${name} ${scheme} ${width}`;
        await page.goto(`${url}#/${name}`);
        await prepare(name);
        await new Promise((done) => setTimeout(done, 700));
        const alert = await page.$eval("main", (main) =>
          main.querySelector("[role=alert]")?.textContent ?? null);
        if (alert) wrong.push(`${where}: ${alert}`);
        const over = await page.evaluate(() => {
          const wide = document.documentElement.scrollWidth;
          return wide > innerWidth ? wide : 0;
        });
        if (over) wrong.push(`${where}: it is ${over} pixels wide`);
        const file = `${name.replace("/", "-")}-${scheme}-${width}.png`;
        if (pictures) await page.screenshot({ path: join(pictures, file) });
      }
    }
  }
}

async function signsOut() {
  where = "sign-out";
  await page.click("#sign-out");
  await page.waitForSelector("form");
}

try {
  await byKeyboard();
  await followsAndFails();
  await changes();
  await allPages();
  await signsOut();
} catch (error) {
  wrong.push(`${where}: ${error.message}`);
  if (pictures) await page.screenshot({ path: join(pictures, "failed.png") });
}
await browser.close();
for (const line of wrong) console.log(line);
process.exitCode = wrong.length ? 1 : 0;
