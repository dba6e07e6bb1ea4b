// The live instances of purposes: which machine and process, what they have in hand, and when they were last heard of.
import { html } from "../core/ui.js";
import { listOf } from "../core/facts.js";
import { count, rate } from "../core/format.js";
import { Empty, Page } from "../parts/page.js";
import { Gauge, State } from "../parts/state.js";
import { PURPOSE, TOPIC, Filter, Table, filtered } from "../parts/table.js";
import { Time } from "../parts/time.js";

const OF = [
  PURPOSE,
  TOPIC,
];
const OWN = [
  { name: "machine", label: "Machine and process", wide: true, value: (each) => `${each.machine} ${each.process}`, cell: (each) => html`<span dir="auto" class="wrap">${each.machine} <span class="quiet">${each.process}</span></span>` },
  { name: "version", label: "Version", number: true, value: (each) => each.version },
  { name: "state", label: "State", value: (each) => each.state, cell: (each) => html`<${State} name=${each.state} />` },
  { name: "in_hand", label: "In hand", value: (each) => each.in_hand / (each.room || 1), cell: (each) => html`<${Gauge} value=${each.in_hand} of=${each.room} label="Used room" />` },
  { name: "rate", label: "Rate", number: true, value: (each) => each.rate, cell: (each) => rate(each.rate) },
  { name: "settled", label: "Handled", number: true, value: (each) => each.settled, cell: (each) => count(each.settled) },
  { name: "since", label: "Up since", value: (each) => each.since, cell: (each) => html`<${Time} at=${each.since} />` },
  { name: "heard", label: "Heard", value: (each) => each.heard, cell: (each) => html`<${Time} at=${each.heard > each.since ? each.heard : each.since} />` }, // it comes in steps
  { name: "error", label: "Last error", value: (each) => each.error ?? "", cell: (each) => (each.error ? html`<span class="error" dir="auto">${each.error}</span>` : "") },
];

export const InstanceTable = ({ rows, short }) =>
  html`<${Table} label="Instances" columns=${short ? OWN : [...OF, ...OWN]} rows=${rows} keyOf=${(each) => each.at} sort=${short ? "machine" : "purpose"} />`;

export function Instances() {
  const all = listOf("instances");
  const rows = filtered(all, (each) => `${each.purpose} ${each.topic} ${each.machine} ${each.process} ${each.state}`);
  return html`<${Page} title="Instances" actions=${html`<${Filter} label="Filter by purpose, topic or machine" />`}>
    ${all.length ? html`<${InstanceTable} rows=${rows} />` : html`<${Empty} command="solarwind run app:wind --workers 4">No instance is up. An instance is a handler that runs:</${Empty}>`}
  </${Page}>`;
}
