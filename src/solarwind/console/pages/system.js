// The system: stores, connections, the limits of the server, and what operators did.
import { html } from "../core/ui.js";
import { get } from "../core/api.js";
import { now } from "../core/clock.js";
import { facts, listOf } from "../core/facts.js";
import { bytes, count, seconds } from "../core/format.js";
import { pages } from "../core/router.js";
import { useAnswer } from "../parts/asked.js";
import { Facts, Failure, Page, Section } from "../parts/page.js";
import { Histogram } from "../parts/spark.js";
import { State } from "../parts/state.js";
import { Table } from "../parts/table.js";
import { Time } from "../parts/time.js";

const AGAIN_MS = 5_000;

export function System() {
  const open = facts.server.value.get("connections") ?? {};
  return html`<${Page} title="System">
    <${Section} title="Stores"><${Stores} /></${Section}>
    <${Section} title="Connections of this server"><${Facts} of=${[
      ["WebSocket clients", count(open.websockets)],
      ["Viewers", count(open.viewers)],
      ["Feeds", count(open.feeds)],
    ]} /></${Section}>
    <${Section} title="What operators did" aside="the last 100"><${Audit} /></${Section}>
    <${Section} title="Limits"><${Limits} /></${Section}>
  </${Page}>`;
}

function Stores() {
  const { answer, error } = useAnswer(() => get("/v1/stores"), [Math.floor(now.value / AGAIN_MS)]);
  if (error) return html`<${Failure} error=${error} />`;
  return (answer?.stores ?? []).map((each) => html`<${Facts} of=${[
      ["Store", html`<span dir="auto" class="wrap">${each.store}</span>`],
      ["Process", html`<span dir="auto" class="wrap">${each.process}</span>`],
      ["State", html`<${State} name=${each.full ? "refused" : "running"} title=${each.full ? "It refuses new events: it has no room" : "It accepts events"} />`],
      ["Room in all", bytes(each.size)],
      ["Room left", bytes(each.free)],
    ]} />
    <h3>How long commits take</h3>
    <${Histogram} counts=${each.commits.counts} sum=${Number(each.commits.sum_s)} label="Commit times" />`);
}

function Audit() {
  const columns = [
    { name: "time", label: "When", value: (each) => each.time, cell: (each) => html`<${Time} at=${each.time} />` },
    { name: "by", label: "Who", value: (each) => each.by, cell: (each) => html`<span dir="auto" class="wrap">${each.by}</span>` },
    { name: "verb", label: "What", value: (each) => each.verb },
    { name: "of", label: "Of", value: (each) => `${each.topic} ${each.purpose}`, cell: ({ topic, purpose }) => (purpose ? html`<a href=${pages.purpose(topic, purpose)} dir="auto" class="wrap">${purpose}</a> <span class="quiet wrap">${topic}</span>` : topic ? html`<a href=${pages.topic(topic)} class="wrap">${topic}</a>` : "") },
    { name: "arguments", label: "With", cell: (each) => html`<code class="brief" dir="auto">${each.arguments}</code>` },
    { name: "events", label: "Events", number: true, value: (each) => each.events ?? null, cell: (each) => (each.events === undefined ? "" : count(each.events)) },
  ];
  return html`<${Table} label="Audit" columns=${columns} rows=${listOf("audit")} keyOf=${(each) => each.at} sort="-time" empty=${html`<p class="quiet">Nobody did anything yet. Every verb of an operator is noted here, whichever way it came.</p>`} />`;
}

function Limits() {
  const row = (part) => Object.entries(facts.server.value.get(part) ?? {}).map(([name, value]) => [name.replaceAll("_", " "), shown(name, value)]);
  return html`<details><summary>All limits of this server</summary><${Facts} of=${[...row("limits"), ...row("settings")]} /></details>`;
}

const shown = (name, value) => (/bytes$/.test(name) ? bytes(value) : /_s$/.test(name) ? seconds(value) : typeof value === "number" ? count(value) : String(value));
