// Webhooks: where events are POSTed to, how the targets answer, and one of them with its last answers.
import { html, plain, useSignal } from "../core/ui.js";
import { get, webhookPath } from "../core/api.js";
import { now } from "../core/clock.js";
import { facts, listOf } from "../core/facts.js";
import { seconds } from "../core/format.js";
import { curlOf } from "../core/verbs.js";
import { pages, to } from "../core/router.js";
import { useAnswer } from "../parts/asked.js";
import { Copied } from "../parts/copied.js";
import { Dialog } from "../parts/dialog.js";
import { Empty, Facts, Failure, Page, Section } from "../parts/page.js";
import { State } from "../parts/state.js";
import { PURPOSE, TOPIC, Table } from "../parts/table.js";
import { Time } from "../parts/time.js";
import { Verb } from "../parts/verb.js";

const AGAIN_MS = 3_000;
const EXAMPLE = { topic: "video.uploaded", purpose: "Tell the shop", name: "shop", url: "https://shop.example/hook" };
const COLUMNS = [
  { name: "name", label: "Webhook", value: (each) => each.name, cell: (each) => html`<a class="wrap" href=${pages.webhook(each.topic, each.purpose, each.name)}>${each.name}</a>` },
  PURPOSE,
  TOPIC,
  { name: "host", label: "Target", value: (each) => each.host, cell: (each) => html`<span class="wrap" dir="auto">${each.host}</span>` },
  { name: "state", label: "State", value: (each) => each.state, cell: (each) => html`<${State} name=${each.state} />` },
  { name: "error", label: "Last answer that was refused", wide: true, value: (each) => each.error ?? "", cell: (each) => (each.error ? html`<span class="error" dir="auto">${each.error}</span>` : html`<span class="quiet">none</span>`) },
  { name: "verbs", label: "Actions", cell: (each) => html`<span class="buttons"><${Verbs} of=${each} small /></span>` },
];

const keeps = ({ exchange }) => exchange !== "fanout";

function Verbs({ of: { topic, purpose, name, state, exchange }, small }) {
  const of = { topic, purpose, name };
  const lacks = keeps({ exchange }) ? state === "paused" && "It is paused: resume it first." : "A fan-out keeps nothing that could be sent again.";
  return html`<${Verb} name=${state === "paused" ? "resume_webhook" : "pause_webhook"} of=${of} small=${small} disabled=${state === "ended" && "It has ended: register it again."} />
    <${Verb} name="resend" of=${of} small=${small} disabled=${lacks} /> <${Verb} name="delete_webhook" of=${of} small=${small} />`;
}

export function Webhooks() {
  const made = useSignal(null); // what was registered, with its secret
  const all = listOf("webhooks");
  const register = html`<${Verb} name="put_webhook" of=${{}} label="Register a webhook" after=${(answer) => (made.value = answer)} />`;
  return html`<${Page} title="Webhooks" actions=${register}>
    <${Table} label="Webhooks" columns=${COLUMNS} rows=${all} keyOf=${(each) => each.at} sort="name"
      empty=${html`<${Empty} request=${curlOf("put_webhook", EXAMPLE)}>No webhook is registered here. One has the server POST the events of a purpose to a URL. It is registered above, or so:</${Empty}>`} />
    ${made.value?.secret && html`<${Dialog} title=${`The secret of ${made.value.name}`} close=${() => (made.value = null)}>
      <p>The target checks signatures with it. It is shown this once: copy it now.</p>
      <${Copied} text=${made.value.secret} label="Secret" />
    </${Dialog}>`}
  </${Page}>`;
}

export function WebhookPage({ names: [topic, purpose, name] }) {
  const stands = facts.webhooks.value.get(`${topic}/${purpose}/${name}`);
  const trail = [["Webhooks", to(["webhooks"])], [topic, pages.topic(topic)], [purpose, pages.purpose(topic, purpose)]];
  if (!stands) return html`<${Page} title=${name} trail=${trail}><${Empty}>There is no such webhook: it was never registered, or it was removed.</${Empty}></${Page}>`;
  return html`<${Page} title=${name} trail=${trail} actions=${html`<${Verbs} of=${stands} />`}>
    <${Facts} of=${[
      ["State", html`<${State} name=${stands.state} />`],
      ["Target", html`<span dir="auto">${stands.host}</span>`],
      ["Exchange", `${stands.exchange}, version ${stands.version}`],
      stands.error && ["Why", html`<span class="error" dir="auto">${stands.error}</span>`],
      keeps(stands) && ["What it gave up", html`<a href=${pages.dead(topic, purpose)}>Dead letters of the purpose</a>`],
    ]} />
    <${Section} title="Last answers" aside="the last 20, since the server started"><${Answers} path=${webhookPath(topic, purpose, name)} topic=${topic} /></${Section}>
  </${Page}>`;
}

function Answers({ path, topic }) {
  const { answer, error } = useAnswer(() => get(`${path}/answers`), [path, Math.floor(now.value / AGAIN_MS)]);
  const columns = [
    { name: "time", label: "When", cell: (each) => html`<${Time} at=${each.time} />` },
    { name: "status", label: "Answer", cell: (each) => html`<${State} name=${each.error ? "failed" : "settled"} /> ${each.status ?? "none came"}` },
    { name: "took", label: "Took", number: true, cell: (each) => seconds(Number(each.took_s)) },
    { name: "id", label: "Event", cell: (each) => html`<a class="id wrap" dir="auto" href=${pages.event(topic, each.id)}>${each.id}</a>${each.attempt > 1 && html` <span class="quiet">attempt ${each.attempt}</span>`}` },
    { name: "error", label: "Why it is not settled", cell: (each) => each.error && html`<span class="error" dir="auto">${each.error}</span>` },
    { name: "payload", label: "What it said", wide: true, cell: (each) => each.payload && html`<code class="brief" dir="auto" title=${plain(each.payload)}>${each.payload}</code>` },
  ];
  return html`${error && html`<${Failure} error=${error} />`}
    ${answer && html`<${Table} label="Last answers" columns=${columns} rows=${answer.answers} keyOf=${(each) => `${each.time} ${each.id}`} empty=${html`<p class="quiet">It has answered nothing since the server started.</p>`} />`}`;
}
