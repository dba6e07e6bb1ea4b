// One topic: how it stands, its purposes, its newest events, and its history.
import { html } from "../core/ui.js";
import { get, topicPath, withQuery } from "../core/api.js";
import { facts, purposes } from "../core/facts.js";
import { bytes, count, plural, rate, seconds } from "../core/format.js";
import { route, setQuery, to } from "../core/router.js";
import { rights } from "../core/session.js";
import { useAnswer } from "../parts/asked.js";
import { History, Tail } from "../parts/history.js";
import { Empty, Facts, Failure, Loading, Page, Section } from "../parts/page.js";
import { Rates, joins } from "../parts/rates.js";
import { Table } from "../parts/table.js";
import { Time } from "../parts/time.js";
import { Verb } from "../parts/verb.js";
import { PurposeTable } from "./purposes.js";

const VIEWS = [["newest", "Newest, live"], ["history", "History"], ["types", "Types of payloads"]];

export function TopicPage({ names: [topic] }) {
  const stands = facts.topics.value.get(topic);
  const trail = [["Topics", to(["topics"])]];
  if (!stands) return html`<${Page} title=${topic} trail=${trail} actions=${html`<${Verb} name="fire" of=${{ topic }} />`}><${Empty}>There is no such topic. It is made by the first event that is fired on it.</${Empty}></${Page}>`;
  const own = purposes().filter((each) => each.topic === topic);
  const view = route.value.query.view ?? (route.value.query.key || route.value.query.since ? "history" : "newest");
  const verbs = html`<${Verb} name="fire" of=${{ topic }} /> <${Verb} name="keep" of=${{ topic, kept_for: stands.keep, keep_bytes: stands.keep_bytes ?? "" }} disabled=${stands.keep === undefined && "How much it keeps is not known yet."} />`;
  return html`<${Page} title=${topic} trail=${trail} actions=${verbs}>
    <${Facts} of=${[
      ["Fired", html`${count(stands.fired)} <span class="quiet">${rate(stands.fired_per_s)}</span>`],
      ["Kept", stands.kept === undefined ? "…" : html`${count(stands.kept)} <span class="quiet">${bytes(stands.kept_bytes)}</span>`],
      ["Keeps", stands.keep === undefined ? "…" : html`${seconds(stands.keep)}${stands.keep_bytes ? `, at most ${bytes(stands.keep_bytes)}` : ""}`],
      ["Delayed", stands.delayed ? html`<a href=${to(["later"])}>${count(stands.delayed)}</a>, the next <${Time} at=${stands.next_due} />` : "0"],
    ]} />
    <${Section} title="Events a second, and what became of them for all its purposes"><${Rates} path=${withQuery("/v1/rates", { topic })} marks=${joins(own)} /></${Section}>
    <${Section} title="Purposes">
      ${own.length ? html`<${PurposeTable} label="Its purposes" rows=${own} ofTopic />` : html`<${Empty} command=${`solarwind listen ${topic} --purpose "Look at it"`}>No purpose listens to it: what is fired is history, and nothing else.</${Empty}>`}
    </${Section}>
    <${Section} title="Events" aside=${html`<div class="choice" role="group" aria-label="Which events">${VIEWS.map(([name, text]) => html`<button type="button" class="small" aria-pressed=${name === view} onClick=${() => setQuery({ view: name })}>${text}</button>`)}</div>`}>
      ${view === "newest" ? html`<${Tail} topic=${topic} />` : view === "types" ? html`<${Types} topic=${topic} />` : html`<${History} topic=${topic} />`}
    </${Section}>
  </${Page}>`;
}

// What the payloads of the newest events were: looked for when this is shown.
function Types({ topic }) {
  const { answer, error } = useAnswer(() => get(`${topicPath(topic)}/types`), [topic]);
  if (error) return html`<${Failure} error=${error} />`;
  if (!answer) return html`<${Loading} />`;
  const columns = [
    { name: "field", label: "Field", cell: ({ field }) => html`<code class="wrap" dir="auto">${field}</code>` },
    { name: "types", label: "Types", cell: ({ types }) => types.join(", ") },
    { name: "events", label: "Events", number: true, cell: ({ events }) => count(events) },
  ];
  return html`<p>${plural(answer.events, "event")}, the newest${answer.events > 0 && html`, the first of them fired <${Time} at=${answer.since} />`}: ${Object.entries(answer.types).map(([name, number]) => `${count(number)} ${name}`).join(", ") || "none"}.</p>
    ${rights.value.payloads
      ? answer.fields.length > 0 && html`<${Table} label="Fields of payloads" columns=${columns} rows=${answer.fields} keyOf=${(each) => each.field} />`
      : html`<p class="quiet">The fields are shown to tokens with the right <code>watch:payloads</code>.</p>`}
    ${answer.more && html`<p class="more">There are more fields.</p>`}`;
}
