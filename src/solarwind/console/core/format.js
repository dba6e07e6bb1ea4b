// Numbers, sizes and times as text.

const whole = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

export const count = (value) => whole.format(value ?? 0);
export const short = (value) => (value < 10_000 ? whole.format(value ?? 0) : compact.format(value));
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export function rate(value) {
  if (!value) return "0/s";
  return `${value < 10 ? value.toFixed(1) : short(Math.round(value))}/s`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "not known";
  let [size, at] = [value, 0];
  while (size >= 1024 && at < SIZES.length - 1) {
    size /= 1024;
    at += 1;
  }
  return `${at && size < 100 ? size.toFixed(1) : Math.round(size)} ${SIZES[at]}`;
}

// Return how many bytes a text of base64 stands for.
export const bytesIn = (base64) => (base64.length * 3) / 4 - base64.match(/=*$/)[0].length;

// A duration in seconds, in its two largest units.
export function seconds(value) {
  if (value === null || value === undefined) return "not known";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${Number((value * 1e3).toPrecision(3))} ms`;
  if (value < 60) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  const units = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const at = units.findIndex(([, size]) => value >= size);
  const [name, size] = units[at];
  const [smaller, part] = units[at + 1] ?? ["", 1];
  const rest = smaller ? Math.floor((value % size) / part) : 0;
  return `${Math.floor(value / size)} ${name}${rest ? ` ${rest} ${smaller}` : ""}`;
}

export function ago(time, now) {
  const passed = (now - Date.parse(time)) / 1000;
  if (Math.abs(passed) < 1.5) return "now";
  const full = Math.floor(Math.abs(passed));
  const text = full < 60 ? `${full} s` : seconds(full);
  return passed < 0 ? `in ${text}` : `${text} ago`;
}

export function absolute(time) {
  return `${new Date(time).toLocaleString("sv-SE", { timeZoneName: "short" })} (${time})`;
}

export const perCent = (part) => `${Number((part * 100).toFixed(part > 0.1 ? 0 : 1))}\u00a0%`;
