// The purposes, and one of them: how it stands, where it is in its topic's history, and its verbs.
import { html, useSignal } from "../core/ui.js";
import { listOf, purposeOf, purposes } from "../core/facts.js";
import { courseOf } from "../core/courses.js";
import { get, purposePath, topicPath } from "../core/api.js";
import { now } from "../core/clock.js";
import { count, plural, rate, seconds, short } from "../core/format.js";
import { pages, to } from "../core/router.js";
import { useAnswer } from "../parts/asked.js";
import { InstanceTable } from "./instances.js";
import { Empty, Facts, Failure, Loading, Page, Section } from "../parts/page.js";
import { Rates, joins } from "../parts/rates.js";
import { Histogram, Spark } from "../parts/spark.js";
import { Gauge, State } from "../parts/state.js";
import { PURPOSE, TOPIC, Filter, Table, filtered } from "../parts/table.js";
import { Time } from "../parts/time.js";
import { Verb } from "../parts/verb.js";

const AGAIN_MS = 10_000;
const RETRIES_MS = 3_000;
const RETRIES = 20; // that are asked for at first,
const MAX_RETRIES = 1_000; // and about so many at last
const COURSE = "Settled, while this page was open";

const NONE = { in_hand: 0, room: 0 };
let used = { of: null, by: new Map() };

// What the instances of a purpose have in hand, and room for.
function use({ topic, purpose }) {
  const instances = listOf("instances");
  if (used.of !== instances) {
    used = { of: instances, by: new Map() };
    for (const each of instances) {
      const key = `${each.topic}/${each.purpose}`;
      const before = used.by.get(key) ?? NONE;
      used.by.set(key, { in_hand: before.in_hand + each.in_hand, room: before.room + each.room });
    }
  }
  return used.by.get(`${topic}/${purpose}`) ?? NONE;
}

function Used({ of }) {
  const { in_hand: value, room } = use(of);
  return room ? html`<${Gauge} value=${value} of=${room} label=${`Used room of ${of.purpose}`} />` : html`<span class="quiet">no instance</span>`;
}

const COLUMNS = [
  PURPOSE,
  TOPIC,
  { name: "state", label: "State", value: (each) => each.state, cell: (each) => html`<${State} name=${each.state} />` },
  { name: "exchange", label: "Exchange", value: (each) => each.exchange },
  { name: "use", label: "In hand", value: (each) => use(each).in_hand / (use(each).room || 1), cell: (each) => html`<${Used} of=${each} />` },
  { name: "pending", label: "Pending", number: true, value: (each) => each.pending, cell: (each) => html`${short(each.pending)}${each.delayed > 0 && html` <span class="quiet" title="So many of these wait for the delay of the purpose">(${short(each.delayed)} delayed)</span>`}` },
  { name: "oldest", label: "Oldest", number: true, value: (each) => (each.oldest ? -Date.parse(each.oldest) : null), cell: (each) => html`<${Time} at=${each.oldest} />` },
  { name: "settled", label: "Settled", number: true, value: (each) => each.rates?.settled, cell: (each) => html`<${Spark} values=${courseOf("purposes", `${each.topic}/${each.purpose}`)} label=${COURSE} /> ${rate(each.rates?.settled)}` },
  { name: "retried", label: "Retried", number: true, value: (each) => each.rates?.retried, cell: (each) => rate(each.rates?.retried) },
  { name: "dead", label: "Dead", number: true, value: (each) => each.dead, cell: (each) => (each.dead ? html`<a class="bad" href=${pages.dead(each.topic, each.purpose)}>${short(each.dead)}</a>` : "0") },
];

export function PurposeTable({ rows, label, ofTopic }) {
  return html`<${Table} label=${label} columns=${ofTopic ? COLUMNS.filter(({ name }) => name !== "topic") : COLUMNS} rows=${rows} keyOf=${(each) => each.at} />`;
}

export function Purposes() {
  const all = purposes();
  return html`<${Page} title="Purposes" actions=${html`<${Filter} label="Filter by purpose or topic" />`}>
    ${all.length
      ? html`<${PurposeTable} label="Purposes" rows=${filtered(all, (each) => `${each.purpose} ${each.topic} ${each.state}`)} />`
      : html`<${Empty} command=${'solarwind listen video.uploaded --purpose "Encode video to MP4"'}>No purpose has joined. One is made when a handler states it:</${Empty}>`}
  </${Page}>`;
}

export function PurposePage({ names: [topic, purpose] }) {
  const stands = purposeOf(topic, purpose);
  const trail = [["Purposes", to(["purposes"])], [topic, pages.topic(topic)]];
  if (!stands)
    return html`<${Page} title=${purpose} trail=${trail}><${Empty}>There is no such purpose on ${topic}: it never joined, or it was retired. What it settled stays in the history of the topic.</${Empty}></${Page}>`;
  const of = { topic, purpose };
  const paused = stands.state === "paused";
  const pends = stands.exchange !== "fanout";
  const instances = listOf("instances").filter((each) => each.topic === topic && each.purpose === purpose);
  const verbs = html`<${Verb} name=${paused ? "resume" : "pause"} of=${of} disabled=${!paused && !pends && "A fan-out keeps nothing that could pend."} />
    <${Verb} name="replay" of=${of} disabled=${!pends && "A fan-out keeps nothing, so nothing of it can be replayed."} />
    <${Verb} name="retire" of=${of} />`;
  return html`<${Page} title=${purpose} trail=${trail} actions=${verbs}>
    <${Standing} topic=${topic} purpose=${purpose} stands=${stands} instances=${instances} />
    ${pends && html`<${Section} title="Where it is in the history"><${Course} topic=${topic} stands=${stands} /></${Section}>`}
    ${pends && html`<${Retries} topic=${topic} purpose=${purpose} />`}
    <${Section} title="Events a second"><${Rates} path=${`${purposePath(topic, purpose)}/rates`} marks=${joins([{ ...stands, purpose }])} /></${Section}>
    <${Section} title="How long its handlers take"><${Times} topic=${topic} purpose=${purpose} /></${Section}>
    <${Section} title="Instances" aside=${plural(instances.length, "instance")}>
      ${instances.length ? html`<${InstanceTable} rows=${instances} short />` : html`<${Empty} command=${"solarwind run app:wind"}>No instance is up, so ${pends ? "its events pend" : "copies are dropped"}. Start the program that handles them:</${Empty}>`}
    </${Section}>
  </${Page}>`;
}

function Standing({ topic, purpose, stands, instances }) {
  const sum = (name) => instances.reduce((total, each) => total + each[name], 0);
  const hooks = listOf("webhooks").filter((each) => each.topic === topic && each.purpose === purpose);
  const timeouts = [...new Set(instances.map((each) => each.timeout).filter(Boolean))];
  const versions = stands.versions.map((version, at) => html`<span class="version">v${version} <${State} name=${stands.version_states?.[at] ?? "current"} /></span> `);
  return html`<${Facts} of=${[
    ["State", html`<${State} name=${stands.state} />`],
    ["Exchange", stands.exchange],
    ["Versions", html`<a href=${pages.rollout(topic, purpose)}>${versions}</a>`],
    hooks.length > 0 && ["Webhooks", hooks.map((each) => html`<a href=${pages.webhook(topic, purpose, each.name)}>${each.name}</a> <${State} name=${each.state} /> `)],
    ["In hand", instances.length ? html`<${Gauge} value=${sum("in_hand")} of=${sum("room")} label="Used room of its instances" />` : "no instance"],
    ["Pending", count(stands.pending)],
    stands.delay > 0 && ["Its delay", seconds(stands.delay)],
    stands.delayed > 0 && ["Wait for the delay", html`${count(stands.delayed)}${stands.delayed_until && html`, the first is handed out <${Time} at=${stands.delayed_until} />`}`],
    timeouts.length > 0 && ["Timeout of a call", timeouts.map((each) => seconds(Number(each))).join(", ")],
    (stands.rate || stands.at_most) && ["Limits", html`${[stands.rate && `${stands.rate} handed out`, stands.at_most && `${count(stands.at_most)} in flight`].filter(Boolean).join(", ")}${stands.limited && html` <span class="quiet">events wait for that</span>`}`],
    ["Oldest", html`<${Time} at=${stands.oldest} none=${stands.pending ? "not known" : "nothing is left"} />`],
    ["Settled", html`${count(stands.settled)} <span class="quiet">${rate(stands.rates?.settled)}</span>`],
    ["Retried", html`${count(stands.retried)} <span class="quiet">${rate(stands.rates?.retried)}</span>`],
    ["Dead letters", stands.dead ? html`<a class="bad" href=${pages.dead(topic, purpose)}>${count(stands.dead)}</a>` : "0"],
    stands.dropped > 0 && ["Dropped", count(stands.dropped)],
    stands.expired > 0 && ["Expired", count(stands.expired)],
    stands.key_missing > 0 && ["Without a key", count(stands.key_missing)],
  ]} />`;
}

// What the topic has had, from the oldest event that is left to the newest, as one bar.
function Course({ topic, stands }) {
  const { answer: of, error } = useAnswer(() => get(topicPath(topic)), [topic, Math.floor(now.value / AGAIN_MS)]);
  if (!of) return error ? html`<${Failure} error=${error} />` : html`<${Loading} />`;
  const trimmed = of.fired - of.kept;
  const parts = [
    ["trimmed", trimmed, "of the topic's history is trimmed"],
    ["settled", Math.max(0, of.kept - stands.pending - stands.in_flight), "kept, and not pending here"],
    ["hand", stands.in_flight, "in hand"],
    ["pending", stands.pending - stands.delayed, "pending"],
    stands.delay > 0 && ["delayed", stands.delayed, "waiting for its delay"],
  ].filter(Boolean);
  const total = parts.reduce((sum, [, number]) => sum + number, 0) || 1;
  return html`<div class="course" role="img" aria-label=${parts.map(([, number, text]) => `${number} ${text}`).join(", ")}>
      ${parts.map(([name, number]) => number > 0 && html`<span class=${name} style=${{ flexGrow: Math.max(number / total, 0.01) }}></span>`)}
    </div>
    <ul class="legend">${parts.map(([name, number, text]) => html`<li><span class=${`swatch ${name}`} aria-hidden="true"></span>${count(number)} ${text}</li>`)}</ul>
    <p class="quiet">${stands.oldest ? html`The floor, its oldest event that is left, is from <${Time} at=${stands.oldest} />; the head is ${plural(of.fired, "event")} long.` : `It has nothing left of the ${plural(of.fired, "event")} that ${of.fired === 1 ? "was" : "were"} fired.`}</p>`;
}

// What waits for a retry, the next one first.
function Retries({ topic, purpose }) {
  const limit = useSignal(RETRIES);
  const { answer, error } = useAnswer(() => get(`${purposePath(topic, purpose)}/retries`, { limit: limit.value }), [topic, purpose, Math.floor(now.value / RETRIES_MS), limit.value]);
  const columns = [
    { name: "id", label: "Event", cell: (each) => html`<a href=${pages.event(topic, each.id)} class="id" dir="auto">${each.id}</a>` },
    { name: "due", label: "Again", cell: (each) => html`<${Time} at=${each.due} />` },
    { name: "attempts", label: "Attempts", number: true, cell: (each) => html`${each.attempts} <span class="quiet">v${each.version}</span>` },
    { name: "error", label: "Last error", cell: (each) => (each.error ? html`<span class="error" dir="auto">${each.error}</span>` : html`<span class="quiet">not known</span>`) },
  ];
  const verb = html`<${Verb} name="retry" of=${{ topic, purpose }} small disabled=${!answer?.retries.length && "Nothing waits for a retry."} />`;
  return html`<${Section} title="Retries next" aside=${verb}>
    ${error && html`<${Failure} error=${error} />`}
    ${answer && html`<${Table} label="Retries next" columns=${columns} rows=${answer.retries} keyOf=${(each) => each.id} empty=${html`<p class="quiet">Nothing waits for a retry.</p>`} />`}
    ${answer?.next && html`<p class="more">The next ${count(limit.value)} are shown. ${limit.value < MAX_RETRIES && html`<button type="button" class="small" onClick=${() => (limit.value += 5 * RETRIES)}>Show more</button>`}</p>`}
  </${Section}>`;
}

function Times({ topic, purpose }) {
  const turn = Math.floor(now.value / AGAIN_MS);
  const { answer, error } = useAnswer(() => get(purposePath(topic, purpose)), [topic, purpose, turn]);
  if (error) return html`<${Failure} error=${error} />`;
  if (!answer) return html`<${Loading} />`;
  if (!answer.times.length) return html`<p class="quiet">Nothing was handled since the dispatcher started.</p>`;
  return html`<div class="pair">${answer.times.map(({ version, handler, settled }) => html`
    <div><h3>In the handler${answer.times.length > 1 && `, version ${version}`}</h3><${Histogram} counts=${handler.counts} sum=${Number(handler.sum_s)} label=${`Handler times of version ${version}`} /></div>
    <div><h3>From fired to settled${answer.times.length > 1 && `, version ${version}`}</h3><${Histogram} counts=${settled.counts} sum=${Number(settled.sum_s)} label=${`Times from fired to settled of version ${version}`} /></div>`)}</div>`;
}
