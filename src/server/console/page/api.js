// The engine over HTTP: statements and their rows.

/** A request that was refused, or a statement that has failed. */
export class Failure extends Error {
  constructor(status, error) {
    super(error.message ?? "the request has failed");
    this.status = status;
    Object.assign(this, error);
  }
}

async function refused(response) {
  let error;
  try {
    ({ error } = await response.json());
  } catch {
    error = { message: `the server has answered ${response.status}` };
  }
  if (response.status === 401) dispatchEvent(new Event("signed-out"));
  return new Failure(response.status, error);
}

async function ask(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, { message: "the server does not answer" });
  }
}

/** Asks for something that changes nothing. */
export async function get(path, signal) {
  const response = await ask(path, { signal, headers: { "x-headwater": "refresh" } });
  if (!response.ok) throw await refused(response);
  return response.json();
}

/** Sends JSON; `by` says whether somebody has done it or the page by itself. */
export async function post(path, body, { signal, by = "act" } = {}) {
  const headers = { "content-type": "application/json", "x-headwater": by };
  const response = await ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw await refused(response);
  return response;
}

/** Runs a text of statements; `on` is handed each line of the answer as it comes. */
export async function run(sql, on, { signal, rows, by = "act" } = {}) {
  const response = await post("/api/run", { sql, rows }, { signal, by });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const text of lines) {
      const line = JSON.parse(text);
      if (line.error) throw new Failure(200, line.error);
      await on(line);
    }
  }
}

/** The rows of the last result of a text, as objects; a page's own questions. */
export async function rows(sql, options = {}) {
  let columns = [];
  let found = [];
  await run(sql, (line) => {
    if (line.columns) [columns, found] = [line.columns.map((c) => c.name), []];
    for (const row of line.rows instanceof Array ? line.rows : []) {
      found.push(Object.fromEntries(columns.map((name, i) => [name, row[i]])));
    }
  }, { by: "refresh", ...options });
  return found;
}

/** Runs what somebody has asked for by a button; the rows of its answer. */
export function act(sql) {
  return rows(sql, { by: "act" });
}
