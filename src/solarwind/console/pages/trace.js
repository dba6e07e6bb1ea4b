// What an event caused: the tree of it, a timeline, or JSON.
import { html, useSignal } from "../core/ui.js";
import { get } from "../core/api.js";
import { now } from "../core/clock.js";
import { plural, seconds } from "../core/format.js";
import { writeExactly } from "../core/json.js";
import { pages, route, setQuery } from "../core/router.js";
import { useAnswer } from "../parts/asked.js";
import { Copied } from "../parts/copied.js";
import { Facts, Failure, Loading, Page, Section } from "../parts/page.js";
import { State } from "../parts/state.js";
import { Time } from "../parts/time.js";
import { brief } from "../parts/history.js";
import { Verb } from "../parts/verb.js";

const VIEWS = [["tree", "Compact"], ["timeline", "Timeline"], ["json", "JSON"]];
const GOES_ON = new Set(["pending", "in hand", "waiting"]);
const AGAIN_MS = 2_000;
const LIMIT = 500;

export function TracePage({ names: [id] }) {
  const over = useSignal(false);
  const { answer, error } = useAnswer(() => get(`/v1/trace/${encodeURIComponent(id)}`, { limit: LIMIT }), [id, over.value ? "over" : Math.floor(now.value / AGAIN_MS)]);
  const { view = "tree", failures } = route.value.query;
  const trail = [["Topics", "#/topics"]];
  if (!answer) return html`<${Page} title=${`Trace of ${id}`} trail=${trail}>${error ? html`<${Failure} error=${error} />` : html`<${Loading} />`}</${Page}>`;
  const nodes = answer.events.map((event, at) => ({ event, outcomes: answer.outcomes[at], caused: [], more: answer.more.includes(event.id) }));
  const by = new Map(nodes.map((node) => [node.event.id, node]));
  for (const node of nodes.slice(1)) by.get(node.event.causationid)?.caused.push(node);
  const goesOn = nodes.some(({ outcomes }) => outcomes.some((each) => GOES_ON.has(each.state)));
  over.value = !goesOn && !answer.more.length;
  const [from, until] = span(nodes);
  const actions = html`<div class="choice" role="group" aria-label="View">${VIEWS.map(([name, text]) => html`<button type="button" class="small" aria-pressed=${name === view} onClick=${() => setQuery({ view: name })}>${text}</button>`)}</div>
    <button type="button" class="small" aria-pressed=${Boolean(failures)} onClick=${() => setQuery({ failures: failures ? undefined : "only" })}>Only failures</button>`;
  const shown = failures ? nodes.filter(fails) : nodes;
  return html`<${Page} title=${`Trace of ${id}`} trail=${trail} actions=${actions}>
    ${error && html`<${Failure} error=${error} />`}
    <${Facts} of=${[
      ["Events", plural(nodes.length, "event") + (answer.more.length ? ", and more" : "")],
      ["Begun", html`<${Time} at=${new Date(from).toISOString()} />`],
      [over.value ? "Took" : "Took so far", seconds((until - from) / 1000)],
      ["State", goesOn ? html`<${State} name="in hand" />` : html`<${State} name=${nodes.some(fails) ? "dead" : "settled"} />`],
    ]} />
    ${view === "json" ? html`<${Copied} text=${writeExactly(answer.events, 2)} label="The events as JSON" />`
      : view === "timeline" ? html`<${Timeline} nodes=${shown} from=${from} until=${until} />`
      : failures ? html`<ul class="trace">${shown.map((node) => html`<li><${Node} of=${node} /></li>`)}</ul>`
      : html`<ul class="trace"><${Branch} of=${nodes[0]} path=${new Set()} /></ul>`}
    <${Redo} nodes=${nodes} />
    ${failures && !shown.length && html`<p class="calm">Nothing failed.</p>`}
  </${Page}>`;
}

const fails = ({ outcomes }) => outcomes.some((each) => each.state === "dead" || each.error);

function span(nodes) {
  const times = nodes.flatMap(({ event, outcomes }) => [event.time, ...outcomes.map((each) => each.ended)]).filter(Boolean).map((each) => Date.parse(each));
  return [Math.min(...times), Math.max(...times)];
}

// An event and, below it, what it caused. Where a topic occurs again on the way, that is a loop, and said.
function Branch({ of, path }) {
  const topic = of.event.type;
  const below = new Set([...path, topic]);
  return html`<li><${Node} of=${of} loops=${path.has(topic)} />
    ${of.caused.length > 0 && html`<ul>${of.caused.map((each) => html`<${Branch} key=${each.event.id} of=${each} path=${below} />`)}</ul>`}
  </li>`;
}

function Node({ of: { event, outcomes, more }, loops }) {
  const purpose = event.causationpurpose;
  return html`<div class="line">
      ${purpose && html`<span class="quiet" dir="auto">${purpose} v${event.causationversion} →</span>`}
      <a href=${pages.topic(event.type)}><strong>${event.type}</strong></a>
      <a href=${pages.event(event.type, event.id)} class="id">${event.id}</a>
      ${loops && html`<span class="state warn" title="The topic occurs above it already">↺ loop</span>`}
      <${Time} at=${event.time} />
    </div>
    <code class="brief" dir="ltr">${brief(event)}</code>
    <ul class="outcomes short">${outcomes.map((each) => html`<li key=${each.purpose}><a href=${pages.purpose(event.type, each.purpose)} dir="auto">${each.purpose}</a> <${State} name=${each.state} />
      ${each.attempts > 1 && html`<span class="quiet">${plural(each.attempts, "attempt")}</span>`}
      ${each.error && html`<span class="error" dir="auto">${each.error}</span>`}
      ${each.state === "dead" && html`<${Verb} name="redrive" of=${{ topic: event.type, purpose: each.purpose, ids: [event.id] }} small label="Again" />`}</li>`)}</ul>
    ${more && html`<p><a href=${pages.trace(event.id)}>What it caused besides</a></p>`}`;
}

// What a version of a purpose caused can be made pending again, for the purposes that got it.
function Redo({ nodes }) {
  const by = new Map(nodes.map((node) => [node.event.id, node.event]));
  const found = new Map();
  for (const { event, outcomes } of nodes.slice(1)) {
    const cause = by.get(event.causationid);
    if (!cause || !event.causationpurpose) continue;
    const caused_by = `${cause.type}/${event.causationpurpose}@${event.causationversion}`;
    for (const { purpose, state } of outcomes)
      if (state !== "copied" && state !== "not for it") found.set(`${caused_by} ${event.type} ${purpose}`, { topic: event.type, purpose, caused_by });
  }
  if (!found.size) return null;
  return html`<${Section} title="Redo">
    <ul class="groups">${[...found.values()].map((of) => html`<li><div class="line"><span dir="auto">What <strong>${of.caused_by}</strong> caused, once more for <strong>${of.purpose}</strong></span><span class="spacer"></span><${Verb} name="replay" of=${of} label="Redo" small /></div></li>`)}</ul>
  </${Section}>`;
}

function Timeline({ nodes, from, until }) {
  const length = Math.max(1, until - from);
  const bar = (start, end) => {
    const begin = ((Date.parse(start) - from) / length) * 100;
    return { left: `${begin}%`, width: `${Math.max(0.4, ((end ? Date.parse(end) : until) - Date.parse(start)) / length * 100)}%` };
  };
  return html`<div class="timeline" role="region" tabindex="0" aria-label="Timeline">
    ${nodes.flatMap(({ event, outcomes }) => [
      html`<div class="row" key=${event.id}><a href=${pages.event(event.type, event.id)}>${event.type}</a><div class="lane"><span class="fired" style=${{ left: bar(event.time, event.time).left }} title="fired"></span></div></div>`,
      ...outcomes.filter((each) => each.state !== "not for it").map((each) => html`<div class="row" key=${`${event.id} ${each.purpose}`}>
        <span class="indent" dir="auto">${each.purpose} <${State} name=${each.state} /></span>
        <div class="lane">
          ${each.state !== "copied" && html`<span class="pended" style=${bar(event.time, each.since ?? each.ended)} title="pended"></span>`}
          ${each.since && html`<span class=${`ran ${each.state === "dead" ? "bad" : ""}`} style=${bar(each.since, each.ended)} title=${`${each.state}, ${plural(each.attempts, "attempt")}`}></span>`}
        </div>
      </div>`),
    ])}
    <p class="legend"><span><span class="swatch pended" aria-hidden="true"></span>pended</span> <span><span class="swatch ran" aria-hidden="true"></span>in hand</span> <span class="quiet">over ${seconds(length / 1000)}</span></p>
  </div>`;
}
