// All facts of the dispatcher, as the server's `/v1/watch` says them: a snapshot, and what changes.
import { batch, effect, signal } from "./ui.js";
import { askRights, rights, signOut } from "./session.js";
import { rest } from "./clock.js";
import { readStream } from "./stream.js";

const PARTS = ["topics", "purposes", "instances", "attention", "audit", "stores", "webhooks", "server"];
const AGAIN_MS = 1_000;

// Each part is a signal of a Map by the server's keys. A fact that changed is another object, all others are the same.
export const facts = Object.fromEntries(PARTS.map((part) => [part, signal(new Map())]));
export const known = signal(false); // whether the first snapshot is here
export const state = signal({ name: "connecting", why: "" }); // connecting, live, away, or paused
export const returns = signal(0); // how often a server that was away came back
export const pausedByKey = signal(false);
const hidden = signal(document.hidden);
let lastId = "";
let reading = null; // the controller of the open stream
let staged = null; // of a snapshot that is not whole yet
let changed = new Map();

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

// Return a fact with a merge patch (RFC 7396) applied.
function merged(fact, change) {
  const made = { ...fact };
  for (const [name, value] of Object.entries(change)) {
    if (value === null) delete made[name];
    else made[name] = isObject(value) ? merged(isObject(made[name]) ? made[name] : {}, value) : value;
  }
  return made;
}

function apply(change) {
  if (change.snapshot) {
    staged = true;
    changed = new Map(PARTS.map((part) => [part, new Map()]));
  }
  for (const part of PARTS) {
    if (!change[part]) continue;
    if (!changed.has(part)) changed.set(part, new Map(facts[part].peek()));
    const into = changed.get(part);
    for (const [key, value] of Object.entries(change[part])) {
      if (value === null) into.delete(key);
      else into.set(key, merged(into.get(key) ?? named(part, key), value));
    }
  }
}

function show() {
  batch(() => {
    for (const [part, map] of changed) facts[part].value = map;
    known.value = true;
    staged = null;
  });
  changed = new Map();
}

function receive(message) {
  if (message.event === "closed") throw new Error(JSON.parse(message.data).detail);
  if (!message.data) return;
  apply(JSON.parse(message.data));
  if (message.id) {
    lastId = message.id;
    show();
  }
  if (state.value.name === "live" || staged) return;
  if (state.value.name === "away") returns.value += 1;
  state.value = { name: "live", why: "" };
}

async function watch(abort) {
  while (!abort.aborted) {
    let why = "the server does not answer";
    try {
      changed = new Map();
      await readStream("/v1/watch", lastId, abort, receive);
      why = "the server ended the connection";
    } catch (error) {
      if (error.status || !(error instanceof TypeError || error.name === "AbortError")) why = error.message;
      if (error.status === 401) signOut(error.message);
    }
    if (abort.aborted) return;
    state.value = { name: "away", why };
    await rest(AGAIN_MS);
    if (!abort.aborted) await askRights().catch(() => null); // a revoked token is noticed, a server that is back too
  }
}

// Watch as long as the token may, and nobody has paused it.
export function begin() {
  document.addEventListener("visibilitychange", () => (hidden.value = document.hidden));
  effect(() => {
    const watches = rights.value && rights.value.watch === true;
    const paused = pausedByKey.value || hidden.value;
    if (watches && !paused && !reading) {
      reading = new AbortController();
      state.value = { name: "connecting", why: "" };
      watch(reading.signal);
    } else if (reading && (!watches || paused)) {
      reading.abort();
      reading = null;
    }
    if (paused) state.value = { name: "paused", why: pausedByKey.value ? "by the key p" : "while it is not seen" };
    if (!watches) forget();
  });
}

function forget() {
  lastId = "";
  batch(() => {
    for (const part of PARTS) facts[part].value = new Map();
    known.value = false;
  });
}

// Facts as lists ------------------------------------------------------------------------------------------------

const AT = /^([^/]*)\/([\s\S]*)$/; // a topic has no slash in it, a purpose may

// What a fact's key says is part of the fact, so that a list of facts is the values of their map: there may be thousands.
function named(part, key) {
  if (part === "server") return {}; // its facts are shown field by field
  if (part === "topics") return { at: key, topic: key };
  if (part !== "purposes") return { at: key };
  const [, topic, purpose] = AT.exec(key);
  return { at: key, topic, purpose };
}

const lists = new WeakMap(); // of maps, which are others once something changed

// Return all facts of a part. The list is the same until one changes: nobody may change it.
export function listOf(part) {
  const map = facts[part].value;
  if (!lists.has(map)) lists.set(map, [...map.values()]);
  return lists.get(map);
}

export const purposes = () => listOf("purposes");
export const topics = () => listOf("topics");
export const purposeOf = (topic, purpose) => facts.purposes.value.get(`${topic}/${purpose}`);
