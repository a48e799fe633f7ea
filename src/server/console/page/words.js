// What the editor offers where somebody writes: columns behind a relation and a dot, relations
// where one is wanted, and elsewhere columns of what the statement names, functions and keywords.

import { rows } from "./api.js";
import { quoted } from "./format.js";

const KEYWORDS = `ALL ALTER AND AS ASC BEGIN BETWEEN BY CASE CAST CHECKPOINT COMMIT CREATE CROSS
  DELETE DESC DESCRIBE DISTINCT DROP ELSE EMIT END EXCEPT EXISTS EXPLAIN FALSE FILTER FLUSH FORMAT
  FROM FULL GROUP HAVING IN INDEX INNER INSERT INTERSECT INTERVAL INTO IS JOIN KEY LATERAL LEFT LIKE
  LIMIT MATERIALIZED NOT NULL OFFSET ON OR ORDER OUTER OVER PARTITION PRIMARY RESUME RETRY RETURNING
  RIGHT ROLLBACK SELECT SET SHOW SINK SINKS SKIP SNAPSHOT SOURCE SOURCES SUBSCRIBE TABLE TABLES THEN
  TO TRUE TRUNCATE UNION UNIQUE UPDATE USING VALUES VIEW VIEWS WATERMARK WHEN WHERE WINDOW WITH`
  .split(/\s+/);

const FUNCTIONS = `abs array_agg avg ceil coalesce concat count cumulate date_bin date_trunc
  dense_rank extract first_value floor generate_series greatest hop lag last_value lead least length
  lower max min now nullif percentile_cont rank regexp_replace replace round row_number session
  split_part stddev string_agg substring sum to_char to_timestamp trim tumble unnest upper`
  .split(/\s+/);

/** Words behind which a relation is wanted. */
const BEFORE_RELATION = ["from", "join", "into", "update", "table", "view", "to", "on", "analyze"];

/** Most that are offered. */
const OFFERED = 60;

/** Relations with their columns, as the role sees them. */
export async function relations() {
  const found = new Map();
  const all = await rows(`SELECT table_schema, table_name, column_name, data_type
    FROM information_schema.columns
    WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
    ORDER BY table_schema, table_name, ordinal_position`);
  for (const row of all) {
    const name = row.table_schema === "public" ? row.table_name
      : `${row.table_schema}.${row.table_name}`;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ name: row.column_name, type: row.data_type });
  }
  return found;
}

/** What fits in front of a place in a text: `{ from, words: [{ text, what }] }`. */
export function offers(text, at, known) {
  const before = text.slice(0, at);
  const [part] = before.match(/[\w$".]*$/);
  const behind = before.slice(0, -part.length || undefined).trimEnd();
  const last = (behind.match(/[\w]+$/) ?? [""])[0].toLowerCase();
  const dot = part.lastIndexOf(".");
  const typed = part.slice(dot + 1).replaceAll('"', "").toLowerCase();
  const from = at - (part.length - dot - 1);
  const statement = text.slice(before.lastIndexOf(";") + 1);
  const words = [];
  const add = (name, what, write = quoted) => {
    if (name.toLowerCase().startsWith(typed)) words.push({ text: write(name), what });
  };
  if (dot >= 0) {
    const owner = part.slice(0, dot).replaceAll('"', "");
    for (const column of columnsOf(owner, statement, known)) add(column.name, column.type);
    for (const name of known.keys()) {
      if (name.startsWith(`${owner}.`)) add(name.slice(owner.length + 1), "relation");
    }
    return { from, words: words.slice(0, OFFERED) };
  }
  if (BEFORE_RELATION.includes(last) || behind.endsWith(",")) {
    for (const name of known.keys()) add(name, "relation");
  }
  if (!BEFORE_RELATION.includes(last)) {
    for (const [name, columns] of known) {
      if (!mentions(statement, name)) continue;
      for (const column of columns) add(column.name, column.type);
    }
    if (typed) {
      for (const name of known.keys()) add(name, "relation");
      for (const word of KEYWORDS) add(word, "", (name) => name);
      for (const name of FUNCTIONS) add(name, "function", (name) => `${name}(`);
    }
  }
  const seen = new Set();
  const fresh = words.filter((word) => !seen.has(word.text) && seen.add(word.text));
  return { from, words: fresh.slice(0, OFFERED) };
}

function mentions(statement, name) {
  return statement.toLowerCase().split(/[^\w$.]+/).includes(name.toLowerCase());
}

/** The columns of a relation, or of what a statement calls so. */
function columnsOf(owner, statement, known) {
  if (known.has(owner)) return known.get(owner);
  for (const [name, columns] of known) {
    const called = new RegExp(`\\b${name.replace(/[.$]/g, "\\$&")}\\b\\s+(?:as\\s+)?${
      owner.replace(/\W/g, "")}\\b`, "i");
    if (called.test(statement)) return columns;
  }
  return [];
}
