// The topics: how much is fired on each, and how much history it keeps.
import { html } from "../core/ui.js";
import { courseOf } from "../core/courses.js";
import { purposes, topics } from "../core/facts.js";
import { bytes, count, rate, short } from "../core/format.js";
import { Empty, Page } from "../parts/page.js";
import { Spark } from "../parts/spark.js";
import { TOPIC, Filter, Table, filtered } from "../parts/table.js";

const COLUMNS = [
  TOPIC,
  { name: "rate", label: "Fired", number: true, value: (each) => each.fired_per_s, cell: (each) => html`<${Spark} values=${courseOf("topics", each.topic)} label="Fired, while this page was open" /> ${rate(each.fired_per_s)}` },
  { name: "fired", label: "In all", number: true, value: (each) => each.fired, cell: (each) => count(each.fired) },
  { name: "kept", label: "Kept", number: true, value: (each) => each.kept ?? null, cell: (each) => (each.kept === undefined ? "…" : short(each.kept)) },
  { name: "bytes", label: "Bytes", number: true, value: (each) => each.kept_bytes ?? null, cell: (each) => (each.kept_bytes === undefined ? "…" : bytes(each.kept_bytes)) },
  { name: "purposes", label: "Purposes", number: true, value: (each) => each.purposes },
  { name: "pending", label: "Pending", number: true, value: (each) => each.pending, cell: (each) => short(each.pending) },
  { name: "delayed", label: "Delayed", number: true, value: (each) => each.delayed, cell: (each) => short(each.delayed) },
];

export function Topics() {
  const by = new Map();
  for (const { topic, pending } of purposes()) {
    const before = by.get(topic) ?? { purposes: 0, pending: 0 };
    by.set(topic, { purposes: before.purposes + 1, pending: before.pending + pending });
  }
  const rows = topics().map((each) => ({ ...each, ...(by.get(each.topic) ?? { purposes: 0, pending: 0 }) }));
  return html`<${Page} title="Topics" actions=${html`<${Filter} label="Filter by topic" />`}>
    <${Table} label="Topics" columns=${COLUMNS} rows=${filtered(rows, (each) => each.topic)} keyOf=${(each) => each.topic}
      empty=${!rows.length && html`<${Empty} command=${'solarwind fire video.uploaded \'{"name": "cat.mov"}\''}>There are no topics. One is made by the first event that is fired on it:</${Empty}>`} />
  </${Page}>`;
}
