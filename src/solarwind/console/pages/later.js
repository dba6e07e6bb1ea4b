// What is to come: schedules with their next ticks, and delayed events.
import { html } from "../core/ui.js";
import { get } from "../core/api.js";
import { now } from "../core/clock.js";
import { topics } from "../core/facts.js";
import { count } from "../core/format.js";
import { pages } from "../core/router.js";
import { useAnswer } from "../parts/asked.js";
import { brief } from "../parts/history.js";
import { Empty, Failure, Loading, Page, Section } from "../parts/page.js";
import { State } from "../parts/state.js";
import { Table } from "../parts/table.js";
import { Time } from "../parts/time.js";
import { Verb } from "../parts/verb.js";

const AGAIN_MS = 5_000;
const PAGE = 200;

export function Later() {
  return html`<${Page} title="Schedules and delayed"><${Schedules} /><${Delayed} /></${Page}>`;
}

function Schedules() {
  const { answer, error } = useAnswer(() => get("/v1/schedules"), [Math.floor(now.value / AGAIN_MS)]);
  const columns = [
    { name: "name", label: "Schedule", value: (each) => each.name, cell: (each) => html`<span dir="auto" class="wrap">${each.name}</span>` },
    { name: "topic", label: "Fires on", value: (each) => each.topic, cell: (each) => html`<a href=${pages.topic(each.topic)} class="wrap">${each.topic}</a>` },
    { name: "words", label: "When", value: (each) => each.words, cell: (each) => html`<span title=${`${each.every}, ${each.zone}`}>${each.words}</span>` },
    { name: "state", label: "State", value: (each) => each.state, cell: (each) => html`<${State} name=${each.state} />` },
    { name: "next", label: "Next", value: (each) => each.next[0] ?? null, cell: (each) => html`<${Time} at=${each.next[0]} none="none" />` },
    { name: "fired", label: "Last", value: (each) => each.fired, cell: (each) => html`<${Time} at=${each.fired} none="never" />` },
    { name: "missed", label: "Missed", value: (each) => each.missed_at, cell: (each) => html`<${Time} at=${each.missed_at} none="none" />` },
    { name: "verbs", label: "Actions", cell: ({ name, state }) => html`<span class="buttons">
        <${Verb} name=${state === "paused" ? "resume_schedule" : "pause_schedule"} of=${{ name }} small />
        <${Verb} name="run_schedule" of=${{ name }} small /> <${Verb} name="remove_schedule" of=${{ name }} small /></span>` },
  ];
  return html`<${Section} title="Schedules">
    ${error && html`<${Failure} error=${error} />`}
    ${answer ? html`<${Table} label="Schedules" columns=${columns} rows=${answer.schedules} keyOf=${(each) => each.name} sort="next"
      empty=${html`<${Empty} command=${'solarwind schedules add report.due nightly --every "30 2 * * *"'}>No schedule is declared. One fires an event on a topic at every tick:</${Empty}>`} />` : !error && html`<${Loading} />`}
  </${Section}>`;
}

function Delayed() {
  const all = topics().reduce((sum, each) => sum + (each.delayed ?? 0), 0);
  const { answer, error } = useAnswer(() => get("/v1/delayed", { limit: PAGE }), [all]);
  const columns = [
    { name: "due", label: "Due", value: (each) => each.due, cell: (each) => html`<${Time} at=${each.due} />` },
    { name: "topic", label: "Topic", value: (each) => each.event.type, cell: (each) => html`<a href=${pages.topic(each.event.type)} class="wrap">${each.event.type}</a>` },
    { name: "id", label: "Id", value: (each) => each.event.id, cell: (each) => html`<span class="id wrap" dir="auto">${each.event.id}</span>` },
    { name: "payload", label: "Payload", cell: (each) => html`<code class="brief" dir="ltr">${brief(each.event)}</code>` },
    { name: "verbs", label: "Actions", cell: ({ event }) => html`<${Verb} name="cancel" of=${{ topic: event.type, id: event.id }} small />` },
  ];
  return html`<${Section} title="Delayed events" aside=${`${count(all)} in all`}>
    ${error && html`<${Failure} error=${error} />`}
    ${answer ? html`<${Table} label="Delayed events" columns=${columns} rows=${answer.delayed} keyOf=${(each) => each.place}
      empty=${html`<${Empty} command=${'solarwind fire reminder.due \'"call"\' --after 2h'}>Nothing is delayed. An event that is fired for later waits here until it is due:</${Empty}>`} />` : !error && html`<${Loading} />`}
    ${answer?.next && html`<p class="more">The next ${count(PAGE)} are shown; the others follow when these are due.</p>`}
  </${Section}>`;
}
