// What a search that is being typed may go on with: pages of topics and purposes, and qualifiers with their values.
import { get, topicPath } from "../core/api.js";
import { facts } from "../core/facts.js";
import { pages } from "../core/router.js";
import { kindOf } from "./letters.js";

const MAX_SHOWN = 8;
const MAX_LOOKED = 20_000; // names, for each letter that is typed
const SAMPLE = 50; // events whose keys and fields are known
const MAX_FIELDS = 100;
const MAX_DEPTH = 3;
const AGAIN_MS = 30_000;
const LAST = /(?:^|\s)((?:([a-z]+(?:\.[\w.]*)?):)?("[^"]*|\S*))$/i;
const QUALIFIERS = [
  ["topic:", "events on a topic"],
  ["purpose:", "what a purpose is called"],
  ["id:", "an event"],
  ["key:", "events with a key"],
  ["error:", "dead letters"],
  ["payload.", "a field of payloads"],
];
const samples = new Map(); // by topic: {at, keys, fields}

const quoted = (value) => (/[\s"]/.test(value) ? `"${value.replaceAll('"', "")}"` : value);

// Return {whole, name, value} of the term that is being typed: the whole of it, its qualifier and what stands behind.
function lastTerm(text) {
  const [, whole, name, value] = LAST.exec(text) ?? ["", "", undefined, ""];
  return { whole, name: name?.toLowerCase(), value: value.replace(/^"/, "").toLowerCase() };
}

// Return options {text, hint, href} or {text, hint, then}: `then` is the whole search once the option is chosen.
export async function suggestions(text) {
  const { whole, name, value } = lastTerm(text);
  const before = text.slice(0, text.length - whole.length);
  const completes = (option, hint) => ({ text: option, hint, then: `${before}${option}${/[:.]$/.test(option) ? "" : " "}` });
  if (name === "topic") return best(topicNames(), value).map((each) => completes(`topic:${each}`, "topic"));
  if (name === "purpose") return best(purposeNames(), value).map((each) => completes(`purpose:${quoted(each)}`, "purpose"));
  if (name === "error") return best(errors(), value).map((each) => completes(`error:${quoted(each)}`, "last error of an instance"));
  if (name === "key") {
    const { topic, keys } = await sampled(before);
    return best(keys, value).map((each) => completes(`key:${quoted(each)}`, `on ${topic}`));
  }
  if (!name && /^payload\./i.test(whole)) {
    const { topic, fields } = await sampled(before);
    return best(fields, whole.slice("payload.".length).toLowerCase()).map((each) => completes(`payload.${each}:`, `a field on ${topic}`));
  }
  if (name) return [];
  const qualifiers = QUALIFIERS.filter(([each]) => each.startsWith(value)).map(([each, hint]) => completes(each, hint));
  if (!value) return before ? qualifiers : qualifiers.slice(0, MAX_SHOWN);
  if (before) return qualifiers; // words before: they are looked for together, and are no page
  const own = best(purposeKeys(), value, (each) => each.slice(each.indexOf("/") + 1)).map((each) => {
    const [topic, purpose] = [each.slice(0, each.indexOf("/")), each.slice(each.indexOf("/") + 1)];
    return { text: purpose, hint: `purpose on ${topic}`, href: pages.purpose(topic, purpose) };
  });
  const named = best(topicNames(), value).map((each) => ({ text: each, hint: "topic", href: pages.topic(each) }));
  const half = MAX_SHOWN / 2;
  const few = Math.max(half, MAX_SHOWN - own.length - qualifiers.length);
  return [...qualifiers, ...named.slice(0, few), ...own].slice(0, MAX_SHOWN);
}

const topicNames = () => facts.topics.peek().keys();
const purposeKeys = () => facts.purposes.peek().keys();
const errors = () => new Set([...facts.instances.peek().values()].map(({ error }) => firstLine(error ?? "")).filter(Boolean));

function purposeNames() {
  const names = new Set();
  for (const each of facts.purposes.peek().keys()) {
    names.add(each.slice(each.indexOf("/") + 1));
    if (names.size >= MAX_LOOKED) break;
  }
  return names;
}

// What an error has before its numbers and names, which differ from one to the next.
const firstLine = (error) => (error.trim() ? kindOf(error.trim().split("\n")[0]).split(/[#…]/)[0].trim() : "");

// Return the best of some names: those that begin with what is typed before those that have it elsewhere.
function best(names, wanted, shown = (each) => each) {
  const [first, others] = [[], []];
  let looked = 0;
  for (const each of names) {
    const at = shown(each).toLowerCase().indexOf(wanted);
    if (at === 0) first.push(each);
    else if (at > 0 && others.length < MAX_SHOWN) others.push(each);
    if (first.length >= MAX_SHOWN || (looked += 1) >= MAX_LOOKED) break;
  }
  return [...first, ...others].slice(0, MAX_SHOWN);
}

// Return the keys and fields of the newest events of the topic that is named before, or else of the one fired on most.
async function sampled(before) {
  const named = /\btopic:"?([^\s"]+)/i.exec(before)?.[1];
  const topic = facts.topics.peek().has(named) ? named : busiest();
  if (topic === undefined) return { topic: "", keys: [], fields: [] };
  const known = samples.get(topic);
  if (known && Date.now() - known.at < AGAIN_MS) return known;
  const { fired } = facts.topics.peek().get(topic);
  const query = fired > SAMPLE ? { after: fired - SAMPLE - 1, limit: SAMPLE } : { limit: SAMPLE };
  const { events } = await get(`${topicPath(topic)}/events`, query).catch(() => ({ events: [] }));
  const [keys, fields] = [new Set(), new Set()];
  for (const { partitionkey, data } of events) {
    if (partitionkey) keys.add(partitionkey);
    addFields(data, "", fields, 1);
  }
  const found = { at: Date.now(), topic, keys, fields };
  samples.clear(); // one at a time
  samples.set(topic, found);
  return found;
}

function busiest() {
  let found;
  for (const [topic, { fired, fired_per_s: rate }] of facts.topics.peek())
    if (!found || rate > found.rate || (rate === found.rate && fired > found.fired)) found = { topic, rate, fired };
  return found?.topic;
}

function addFields(data, before, fields, depth) {
  if (data === null || typeof data !== "object" || Array.isArray(data) || data.text !== undefined) return;
  for (const [name, value] of Object.entries(data)) {
    if (fields.size >= MAX_FIELDS) return;
    if (!/^\w+$/.test(name)) continue; // it could not be written
    fields.add(before + name);
    if (depth < MAX_DEPTH) addFields(value, `${before}${name}.`, fields, depth + 1);
  }
}
