// The system: stores, who owns which topics, connections, limits, what operators did, and all facts as a file.
import { html, useSignal } from "../core/ui.js";
import { get } from "../core/api.js";
import { now } from "../core/clock.js";
import { facts, listOf } from "../core/facts.js";
import { bytes, count, plural, seconds } from "../core/format.js";
import { pages } from "../core/router.js";
import { useAnswer } from "../parts/asked.js";
import { csvOf, download } from "../parts/download.js";
import { Facts, Failure, Page, Section } from "../parts/page.js";
import { Histogram } from "../parts/spark.js";
import { Gauge, State } from "../parts/state.js";
import { Table } from "../parts/table.js";
import { Time } from "../parts/time.js";

const AGAIN_MS = 5_000;
const TOPICS = 20; // of an owner that are named

const part = (name) => facts.server.value.get(name) ?? {};

export function System() {
  const open = part("connections");
  return html`<${Page} title="System">
    <${Section} title="Stores"><${Stores} /></${Section}>
    <${Section} title="Owners" aside="which process has which topics"><${Owners} /></${Section}>
    <${Section} title="Connections of this server"><${Facts} of=${[
      ["WebSocket clients", count(open.websockets)],
      ["Viewers", count(open.viewers)],
      ["Feeds", count(open.feeds)],
    ]} /></${Section}>
    <${Section} title="What operators did" aside="the last 100"><${Audit} /></${Section}>
    <${Section} title="Limits"><${Limits} /></${Section}>
    <${Section} title="Export"><${Export} /></${Section}>
  </${Page}>`;
}

function Stores() {
  const { answer, error } = useAnswer(() => get("/v1/stores"), [Math.floor(now.value / AGAIN_MS)]);
  if (error) return html`<${Failure} error=${error} />`;
  return (answer?.stores ?? []).map((each) => html`<${Facts} of=${[
      ["Store", html`<span dir="auto" class="wrap">${each.store.split(/(?<=\/)/).map((step) => html`${step}<wbr />`)}</span>`],
      ["Process", html`<span dir="auto" class="wrap">${each.process}</span>`],
      ["State", html`<${State} name=${each.full ? "refused" : "running"} title=${each.full ? "It refuses new events: it has no room" : "It accepts events"} />`],
      ["Room in all", bytes(each.size)],
      ["Room left", bytes(each.free)],
    ]} />
    <h3>How long commits take</h3>
    <${Histogram} counts=${each.commits.counts} sum=${Number(each.commits.sum_s)} label="Commit times" none="Nothing was committed since it was opened." />`);
}

function Owners() {
  const { answer, error } = useAnswer(() => get("/v1/owners"), [Math.floor(now.value / AGAIN_MS)]);
  const columns = [
    { name: "owner", label: "Process", cell: (each) => html`<span dir="auto" class="wrap">${each.owner || "nobody"}</span>` },
    { name: "stream", label: "Partition", cell: (each) => html`<span dir="auto" class="wrap">${each.partition} <span class="quiet">${each.stream}</span></span>` },
    { name: "topics", label: "Topics", wide: true, cell: ({ topics }) => (topics ? html`${plural(topics.length, "topic")} <div class="quiet wrap">${topics.slice(0, TOPICS).join(", ")}${topics.length > TOPICS && " …"}</div>` : "no answer") },
  ];
  return html`${error && html`<${Failure} error=${error} />`}
    ${answer && html`<${Table} label="Owners" columns=${columns} rows=${answer.owners} keyOf=${(each) => each.partition} />`}`;
}

// What this page knows of a part, as a file.
function Export() {
  const chosen = useSignal("purposes");
  const rows = () => listOf(chosen.value).map(({ at, ...fact }) => ({ key: at, ...fact }));
  return html`<div class="filters"><label>Facts <select value=${chosen.value} onChange=${(event) => (chosen.value = event.target.value)}>${Object.keys(facts).map((each) => html`<option value=${each} selected=${each === chosen.value}>${each}</option>`)}</select></label>
    <button type="button" class="small" onClick=${() => download(`${chosen.value}.csv`, csvOf(rows()), "text/csv")}>Download CSV</button>
    <button type="button" class="small" onClick=${() => download(`${chosen.value}.json`, JSON.stringify(rows(), null, 1), "application/json")}>Download JSON</button></div>`;
}

function Audit() {
  const columns = [
    { name: "time", label: "When", value: (each) => each.time, cell: (each) => html`<${Time} at=${each.time} />` },
    { name: "by", label: "Who", value: (each) => each.by, cell: (each) => html`<span dir="auto" class="wrap">${each.by}</span>` },
    { name: "verb", label: "What", value: (each) => each.verb },
    { name: "of", label: "Of", value: (each) => `${each.topic} ${each.purpose}`, cell: ({ topic, purpose }) => (purpose ? html`<a href=${pages.purpose(topic, purpose)} dir="auto" class="wrap">${purpose}</a> <span class="quiet wrap">${topic}</span>` : topic ? html`<a href=${pages.topic(topic)} class="wrap">${topic}</a>` : "") },
    { name: "arguments", label: "With", cell: (each) => each.arguments && html`<code class="brief" dir="ltr">${each.arguments}</code>` },
    { name: "events", label: "Events", number: true, value: (each) => each.events ?? null, cell: (each) => (each.events === undefined ? "" : count(each.events)) },
  ];
  return html`<${Table} label="Audit" columns=${columns} rows=${listOf("audit")} keyOf=${(each) => each.at} sort="-time" empty=${html`<p class="quiet">Nobody did anything yet. Every verb of an operator is noted here, whichever way it came.</p>`} />`;
}

function Limits() {
  const [open, limits, settings] = ["connections", "limits", "settings"].map(part);
  const full = [
    ["Topics", facts.topics.value.size, limits.names],
    ["Purposes", facts.purposes.value.size, limits.names],
    ["Viewers", open.viewers, settings.viewers],
    ["Feeds", open.feeds, settings.instances],
  ].filter(([, number, most]) => number !== undefined && most);
  const row = (name) => Object.entries(part(name)).map(([key, value]) => [key.replaceAll("_", " "), shown(key, value)]);
  return html`<${Facts} of=${full.map(([name, number, most]) => [name, html`<${Gauge} value=${number} of=${most} label=${`${name} of the most that there may be`} />`])} />
    <details><summary>All limits of this server</summary><${Facts} of=${[...row("limits"), ...row("settings")]} /></details>`;
}

const shown = (name, value) => (/bytes$/.test(name) ? bytes(value) : /_s$/.test(name) ? seconds(value) : typeof value === "number" ? count(value) : String(value));
