// Numbers, sizes and times as people read them.

const STEPS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** A number in three digits or so: 12.3k. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  for (const [step, letter] of STEPS) {
    if (size >= step * 0.9995) return trim(value / step) + letter;
  }
  return trim(value);
}

function trim(value) {
  const size = Math.abs(value);
  const digits = size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : 2;
  return value.toFixed(digits);
}

/** Bytes. */
export function bytes(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${trim(value)} ${units[at]}`;
}

/** Seconds. */
export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Math.abs(value) < 1) return `${trim(value * 1000)} ms`;
  if (Math.abs(value) < 120) return `${trim(value)} s`;
  if (Math.abs(value) < 7200) return `${trim(value / 60)} min`;
  return Math.abs(value) < 172800 ? `${trim(value / 3600)} h` : `${trim(value / 86400)} d`;
}

/** A share of one. */
export function percent(value) {
  return value === null || value === undefined || Number.isNaN(value)
    ? "–" : `${trim(value * 100)} %`;
}

/** All digits, in groups. */
export function whole(value) {
  return value === null || value === undefined ? "–" : Number(value).toLocaleString("en-US");
}

/** The time of day of seconds since 1970. */
export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

/** A name as SQL writes it. */
export function quoted(name) {
  return name.split(".").map((part) =>
    /^[a-z_][a-z0-9_$]*$/.test(part) ? part : `"${part.replaceAll('"', '""')}"`).join(".");
}

/** A text as SQL writes it. */
export function literal(text) {
  return `'${text.replaceAll("'", "''")}'`;
}

/** Whether a type is one of numbers. */
export function isNumber(type) {
  return /^(smallint|integer|bigint|numeric|real|double precision)/.test(type);
}

/** Whether a type is one of moments. */
export function isTime(type) {
  return /^(timestamp|date|time\b)/.test(type);
}
