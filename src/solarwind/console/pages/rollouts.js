// Rollouts: the versions of purposes side by side, what each gets and how it does, and the verbs that change it.
import { html } from "../core/ui.js";
import { get, purposePath } from "../core/api.js";
import { now } from "../core/clock.js";
import { purposeOf, purposes } from "../core/facts.js";
import { count, perCent, seconds } from "../core/format.js";
import { pages, to } from "../core/router.js";
import { useAnswer } from "../parts/asked.js";
import { Empty, Failure, Loading, Page, Section } from "../parts/page.js";
import { State } from "../parts/state.js";
import { TOPIC, Table } from "../parts/table.js";
import { Time } from "../parts/time.js";
import { Verb } from "../parts/verb.js";

const AGAIN_MS = 2_000;
const MEANINGS = [
  ["current", "gets all events that are in no other version's share"],
  ["ramping", "gets a share of the events that are fired"],
  ["shadow", "gets copies, and what it does is only compared"],
  ["held", "gets nothing yet"],
  ["draining", "gets nothing more, and finishes what it has in hand"],
  ["drained", "has nothing left"],
];

export function Rollouts() {
  const several = purposes().filter((each) => each.versions.length > 1);
  const columns = [
    { name: "purpose", label: "Purpose", value: (each) => each.purpose.toLowerCase(), cell: (each) => html`<a href=${pages.rollout(each.topic, each.purpose)} dir="auto" class="wrap">${each.purpose}</a>` },
    TOPIC,
    { name: "versions", label: "Versions", number: false, value: (each) => each.versions.length, cell: (each) => each.versions.map((version, at) => html`<span class="version">v${version} <${State} name=${each.version_states[at]} /></span> `) },
  ];
  return html`<${Page} title="Rollouts">
    <${Table} label="Purposes with several versions" columns=${columns} rows=${several} keyOf=${(each) => `${each.topic}/${each.purpose}`}
      empty=${html`<${Empty} command=${'solarwind listen video.uploaded --purpose "Encode video to MP4" --version 2 --rollout hold'}>No purpose has several versions. A handler of another version joins beside the first:</${Empty}>`} />
    <${Meanings} />
  </${Page}>`;
}

const Meanings = () => html`<details><summary>What the states say</summary><dl class="facts">${MEANINGS.map(([name, text]) => html`<div><dt><${State} name=${name} /></dt><dd>${text}</dd></div>`)}</dl></details>`;

export function RolloutPage({ names: [topic, purpose] }) {
  const { answer, error } = useAnswer(() => get(`${purposePath(topic, purpose)}/rollout`), [topic, purpose, Math.floor(now.value / AGAIN_MS)]);
  const trail = [["Rollouts", to(["rollouts"])], [topic, pages.topic(topic)], [purpose, pages.purpose(topic, purpose)]];
  if (!answer) return html`<${Page} title=${`Versions of ${purpose}`} trail=${trail}>${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}</${Page}>`;
  const of = { topic, purpose, current: answer.current };
  const delays = answer.versions.some((each) => Number(each.delay) > 0);
  const limits = answer.versions.some((each) => each.rate || each.at_most);
  const columns = [
    { name: "version", label: "Version", value: (each) => each.version, cell: (each) => html`<strong>v${each.version}</strong>` },
    { name: "state", label: "State", value: (each) => each.state, cell: (each) => html`<${State} name=${each.state} />` },
    { name: "share", label: "Share of events", number: true, value: (each) => Number(each.share), cell: (each) => perCent(Number(each.share)) },
    delays && { name: "delay", label: "Delay", number: true, value: (each) => Number(each.delay), cell: (each) => seconds(Number(each.delay)) },
    limits && { name: "limits", label: "Limits", value: (each) => each.rate ?? "", cell: (each) => [each.rate, each.at_most && `${count(each.at_most)} in flight`].filter(Boolean).join(", ") || "–" },
    { name: "instances", label: "Instances", number: true, value: (each) => each.instances },
    { name: "pending", label: "Pending", number: true, value: (each) => each.pending, cell: (each) => count(each.pending) },
    { name: "in_flight", label: "In flight", number: true, value: (each) => each.in_flight },
    { name: "handled", label: "Attempts", number: true, value: (each) => each.handled, cell: (each) => count(each.handled) },
    { name: "failed", label: "Not settled", number: true, value: (each) => each.handled - each.settled, cell: (each) => (each.handled && each.state !== "shadow" ? perCent((each.handled - each.settled) / each.handled) : "–") },
    { name: "mean", label: "Mean", number: true, value: (each) => each.mean_s, cell: (each) => (each.mean_s === null ? "–" : seconds(Number(each.mean_s))) },
    { name: "p95", label: "95 % within", number: true, value: (each) => each.p95_s, cell: (each) => (each.p95_s === null ? "–" : seconds(Number(each.p95_s))) },
    { name: "compared", label: "Differed", number: true, value: (each) => each.differed, cell: (each) => (each.compared ? `${count(each.differed)} of ${count(each.compared)}` : "–") },
    { name: "verbs", label: "Actions", cell: ({ version, state }) => version !== answer.current && html`<span class="buttons">
        <${Verb} name="share" of=${{ topic, purpose, version }} small /> ${state !== "shadow" && html`<${Verb} name="shadow" of=${{ topic, purpose, version }} small />`}
        <${Verb} name="promote" of=${{ ...of, version }} small /></span>` },
  ].filter(Boolean);
  const shadows = answer.versions.some((each) => each.compared > 0);
  return html`<${Page} title=${`Versions of ${purpose}`} trail=${trail} actions=${html`<${Verb} name="rollback" of=${of} disabled=${answer.before === null && "No version was current before."} />`}>
    ${error && html`<${Failure} error=${error} />`}
    ${answer.intended !== answer.current && html`<p class="live away">Version ${answer.intended} is to be current, and has no instance: version ${answer.current} is so meanwhile.</p>`}
    <${Table} label="Versions" columns=${columns} rows=${answer.versions} keyOf=${(each) => each.version} sort="version" />
    <${Meanings} />
    ${(shadows || purposeOf(topic, purpose)?.version_states?.includes("shadow")) && html`<${Differences} topic=${topic} purpose=${purpose} />`}
  </${Page}>`;
}

function Differences({ topic, purpose }) {
  const { answer, error } = useAnswer(() => get(`${purposePath(topic, purpose)}/rollout/differences`, { limit: 100 }), [topic, purpose, Math.floor(now.value / AGAIN_MS)]);
  const result = (of) => html`<${State} name=${of.outcome} /> ${of.error && html`<span class="error" dir="auto">${of.error}</span>`}
    ${of.fired_count > 0 && html`<span class="quiet">fired ${count(of.fired_count)}: ${of.fired.map((each) => `${each.topic} ${each.payload}`).join(", ")}</span>`}`;
  const columns = [
    { name: "time", label: "When", value: (each) => each.time, cell: (each) => html`<${Time} at=${each.time} />` },
    { name: "id", label: "Event", value: (each) => each.id, cell: (each) => html`<a class="id" href=${pages.event(topic, each.id)}>${each.id}</a>` },
    { name: "current", label: "Current", wide: true, cell: (each) => result(each.current) },
    { name: "shadow", label: "Shadow", wide: true, cell: (each) => html`v${each.version} ${result(each.shadow)}` },
  ];
  return html`<${Section} title="What shadows made of events, where it differs">
    ${error && html`<${Failure} error=${error} />`}
    ${answer && html`<${Table} label="Differences" columns=${columns} rows=${answer.differences} keyOf=${(each) => `${each.id} ${each.version}`} sort="-time" empty=${html`<p class="calm">No difference so far.</p>`} />`}
  </${Section}>`;
}
