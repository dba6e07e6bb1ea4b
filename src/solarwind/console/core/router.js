// The address is the state: `#/page/part/part?name=value`. Each part and value is percent-encoded.
import { decoded } from "./encoded.js";
import { signal } from "./ui.js";

function read() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  return {
    parts: path.split("/").filter(Boolean).map(decoded),
    query: Object.fromEntries(new URLSearchParams(query ?? "")),
  };
}

export const route = signal(read());
addEventListener("hashchange", () => (route.value = read()));

// Return the address of a page, such as `to(["purposes", topic, purpose], {sort: "-pending"})`.
export function to(parts, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const path = `#/${parts.map(encodeURIComponent).join("/")}`;
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

export function go(address) {
  location.hash = address.slice(1);
}

// Change parts of the query of this page, without a step in the history.
export function setQuery(changes) {
  const { parts, query } = route.value;
  history.replaceState(null, "", to(parts, { ...query, ...changes }));
  route.value = read();
}

export const pages = {
  topic: (topic) => to(["topics", topic]),
  purpose: (topic, purpose) => to(["purposes", topic, purpose]),
  event: (topic, id) => to(["events", topic, id]),
  trace: (id) => to(["trace", id]),
  dead: (topic, purpose, error) => to(["dead", topic, purpose].filter(Boolean), { error }),
  webhook: (topic, purpose, name) => to(["webhooks", topic, purpose, name]),
  rollout: (topic, purpose) => to(["rollouts", topic, purpose]),
};
