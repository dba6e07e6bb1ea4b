// One event: its payload, what caused it, and what became of it for each purpose.
import { html } from "../core/ui.js";
import { get, topicPath } from "../core/api.js";
import { facts } from "../core/facts.js";
import { now } from "../core/clock.js";
import { count, plural, seconds } from "../core/format.js";
import { pages } from "../core/router.js";
import { writeExactly } from "../core/json.js";
import { useAnswer } from "../parts/asked.js";
import { Copied } from "../parts/copied.js";
import { Facts, Failure, Loading, Page, Section } from "../parts/page.js";
import { Payload } from "../parts/payload.js";
import { State } from "../parts/state.js";
import { Time } from "../parts/time.js";
import { Verb } from "../parts/verb.js";
import { commandOf } from "../core/verbs.js";

const OWN = new Set(["specversion", "id", "type", "source", "time", "datacontenttype", "data", "data_base64", "partitionkey",
  "causationid", "causationpurpose", "causationversion", "causekind", "causename", "correlationid", "duetime", "expirytime"]);
const OVER = new Set(["settled", "dead", "expired", "discarded", "copied", "not for it"]);
const AGAIN_MS = 2_000;
const MAX_COPIED = 10_000; // characters of a payload in a command

export function EventPage({ names: [topic, id] }) {
  const over = useAnswer(() => get(`${topicPath(topic)}/events/${encodeURIComponent(id)}`), [topic, id, ticksOf(topic, id)]);
  const { answer, error } = over;
  const trail = [["Topics", "#/topics"], [topic, pages.topic(topic)]];
  if (!answer) return html`<${Page} title=${id} trail=${trail}>${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}</${Page}>`;
  const { event, position, outcomes } = answer;
  settledFor.set(`${topic}/${id}`, outcomes.every((each) => OVER.has(each.state)));
  const copy = event.data !== undefined && writeExactly(event.data);
  const actions = html`<a class="button" href=${pages.trace(id)}>Trace</a>
    ${copy && html`<${Verb} name="fire" of=${{ topic, payload: copy, key: event.partitionkey ?? "" }} label="Fire an edited copy" />`}`;
  return html`<${Page} title=${id} trail=${trail} actions=${actions}>
    ${error && html`<${Failure} error=${error} />`}
    <${About} event=${event} position=${position} />
    <${Section} title="What became of it">
      ${outcomes.length ? html`<ul class="outcomes">${outcomes.map((each) => html`<li key=${each.purpose}><${Outcome} topic=${topic} id=${id} of=${each} /></li>`)}</ul>` : html`<p class="quiet">No purpose is on its topic.</p>`}
    </${Section}>
    <${Section} title="Payload" aside=${html`<span class="quiet">${event.datacontenttype}</span>`}><${Payload} event=${event} /></${Section}>
    ${copy && copy.length < MAX_COPIED && html`<${Section} title="As a command"><${Copied} text=${commandOf("fire", { topic, payload: copy, key: event.partitionkey })} /></${Section}>`}
  </${Page}>`;
}

// It is asked for again while something may become of it.
const settledFor = new Map();

function ticksOf(topic, id) {
  const fired = facts.topics.value.get(topic)?.fired;
  return settledFor.get(`${topic}/${id}`) ? "over" : `${fired && Math.floor(now.value / AGAIN_MS)}`;
}

function About({ event, position }) {
  const { causationid, causationpurpose, causationversion, causekind, causename } = event;
  const cause = causationid
    ? html`${causationpurpose && html`<span dir="auto">${causationpurpose} v${causationversion}</span>, at `}<a href=${pages.trace(causationid)} class="id">${causationid}</a>`
    : html`<span dir="auto">${causekind ?? "application"} ${causename ?? event.source.replace(/^\/\/[^/]*\//, "")}</span>`;
  const more = Object.entries(event).filter(([name]) => !OWN.has(name));
  return html`<${Facts} of=${[
    ["Fired", html`<${Time} at=${event.time} />`],
    ["By", html`<span dir="auto">${event.source.replace(/^\/\//, "")}</span>`],
    ["Key", event.partitionkey ? html`<span dir="auto">${event.partitionkey}</span>` : "none"],
    ["Position", count(Number(position))],
    ["Cause", cause],
    event.correlationid !== event.id && ["Root", html`<a href=${pages.trace(event.correlationid)} class="id">${event.correlationid}</a>`],
    event.duetime && ["Due", html`<${Time} at=${event.duetime} />`],
    event.expirytime && ["Expires", html`<${Time} at=${event.expirytime} />`],
    ...more.map(([name, value]) => [name, html`<span dir="auto">${String(value)}</span>`]),
  ]} />`;
}

// The steps that it took for one purpose, the last of which is how it stands.
function Outcome({ topic, id, of }) {
  const steps = stepsOf(of);
  const letter = of.state === "dead";
  return html`<div class="line">
      <a href=${pages.purpose(topic, of.purpose)} dir="auto"><strong>${of.purpose}</strong></a>
      <${State} name=${of.state} />
      <span class="spacer"></span>
      ${letter && html`<${Verb} name="redrive" of=${{ topic, purpose: of.purpose, ids: [id] }} small label="Again" /> <${Verb} name="discard" of=${{ topic, purpose: of.purpose, ids: [id] }} small />`}
    </div>
    <ol class="steps" aria-label=${`Steps for ${of.purpose}`}>${steps.map(([name, detail], at) => html`<li class=${at === steps.length - 1 ? "last" : ""}><strong>${name}</strong>${detail && html`<span>${detail}</span>`}</li>`)}</ol>
    ${of.error && html`<p class="error" dir="auto">${of.error}</p>`}`;
}

function stepsOf(of) {
  const by = of.machine && html`, <span dir="auto">${of.machine} ${of.process}</span>`;
  const attempts = of.attempts > 0 ? `, attempt ${of.attempts}` : "";
  const handed = of.since ? [["in hand", html`<${Time} at=${of.since} />${by}${attempts}`]] : of.attempts > 0 ? [["in hand", html`${plural(of.attempts, "attempt")}${by}`]] : [];
  const version = of.version ? `v${of.version}` : "";
  const took = of.took_s !== null ? `, took ${seconds(Number(of.took_s))}` : "";
  switch (of.state) {
    case "not for it":
      return [["accepted", "before the purpose was there, or passed over"]];
    case "pending":
      return [["accepted", ""], ["pending", `${of.place ? `at place ${count(of.place)}` : "in a buffer"}${version && `, to go to ${version}`}`]];
    case "in hand":
      return [["accepted", ""], ...handed];
    case "waiting":
      return [["accepted", ""], ...handed, ...(of.attempts > 0 ? [["failed", plural(of.attempts, "attempt")]] : []), ["waiting", html`to be handed out <${Time} at=${of.until} />`]];
    case "copied":
      return [["accepted", ""], ["copied", "to the instances that were up; nothing is kept of it"]];
    default:
      return [["accepted", ""], ...(of.state === "expired" ? [] : handed), [of.state, html`${of.ended && html`<${Time} at=${of.ended} />`}${of.ended && version && ", "}${version}${took}`]];
  }
}
