// Webhooks: where events are POSTed to, and how the targets answer.
import { html } from "../core/ui.js";
import { listOf } from "../core/facts.js";
import { pages } from "../core/router.js";
import { Empty, Page } from "../parts/page.js";
import { State } from "../parts/state.js";
import { Table } from "../parts/table.js";
import { Verb } from "../parts/verb.js";

const COLUMNS = [
  { name: "name", label: "Webhook", value: (each) => each.name, cell: (each) => html`<span class="wrap">${each.name}</span>` },
  { name: "purpose", label: "Purpose", value: (each) => each.purpose.toLowerCase(), cell: (each) => html`<a href=${pages.purpose(each.topic, each.purpose)} dir="auto" class="wrap">${each.purpose}</a>` },
  { name: "topic", label: "Topic", value: (each) => each.topic, cell: (each) => html`<a href=${pages.topic(each.topic)} class="wrap">${each.topic}</a>` },
  { name: "host", label: "Target", value: (each) => each.host, cell: (each) => html`<span class="wrap" dir="auto">${each.host}</span>` },
  { name: "state", label: "State", value: (each) => each.state, cell: (each) => html`<${State} name=${each.state} />` },
  { name: "exchange", label: "Exchange", value: (each) => `${each.exchange} v${each.version}` },
  { name: "error", label: "Last answer that was refused", value: (each) => each.error ?? "", cell: (each) => (each.error ? html`<span class="error" dir="auto">${each.error}</span>` : html`<span class="quiet">none</span>`) },
  { name: "verbs", label: "Actions", cell: ({ topic, purpose, name }) => html`<span class="buttons"><a class="button small" href=${pages.dead(topic, purpose)}>Dead letters</a>
      <${Verb} name="delete_webhook" of=${{ topic, purpose, name }} small /></span>` },
];
const REGISTER = `curl -X PUT http://127.0.0.1:7400/v1/topics/video.uploaded/purposes/Tell%20the%20shop/webhooks/shop --json '{"url": "https://shop.example/hook"}'`;

export function Webhooks() {
  const all = listOf("webhooks");
  return html`<${Page} title="Webhooks">
    <${Table} label="Webhooks" columns=${COLUMNS} rows=${all} keyOf=${(each) => each.at} sort="name"
      empty=${html`<${Empty} command=${REGISTER}>No webhook is registered. The server POSTs the events of a purpose to a URL:</${Empty}>`} />
    ${all.length > 0 && html`<p class="quiet">A webhook is an instance of its purpose. To stop its deliveries for a while, pause the purpose; what it refused for good is among the dead letters, from where it is redriven.</p>`}
  </${Page}>`;
}
