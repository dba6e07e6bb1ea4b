// The overview: what needs a person comes first, then how much happens.
import { html } from "../core/ui.js";
import { facts, listOf, purposes, topics } from "../core/facts.js";
import { plural, rate, short } from "../core/format.js";
import { pages, to } from "../core/router.js";
import { here } from "../core/verbs.js";
import { Copied } from "../parts/copied.js";
import { Empty, Page, Section } from "../parts/page.js";
import { Rates, joins } from "../parts/rates.js";
import { State } from "../parts/state.js";
import { Time } from "../parts/time.js";

const URGENCY = { high: 0, medium: 1, low: 2 };

export function Overview() {
  const all = purposes();
  const fired = topics().reduce((sum, each) => sum + (each.fired_per_s ?? 0), 0);
  const sum = (name) => all.reduce((total, each) => total + (each[name] ?? 0), 0);
  const perSecond = (name) => all.reduce((total, each) => total + (each.rates?.[name] ?? 0), 0);
  const tiles = [
    ["Fired", rate(fired), to(["topics"], { sort: "-rate" })],
    ["Settled", rate(perSecond("settled")), to(["purposes"], { sort: "-settled" })],
    ["Retried", rate(perSecond("retried")), to(["purposes"], { sort: "-retried" })],
    ["Pending", short(sum("pending")), to(["purposes"], { sort: "-pending" })],
    ["In hand", short(sum("in_flight")), to(["purposes"], { sort: "-use" })],
    ["Dead letters", short(sum("dead")), to(["dead"])],
    ["Instances", short(facts.instances.value.size), to(["instances"])],
  ];
  return html`<${Page} title="Overview">
    <${Attention} />
    <ul class="tiles">${tiles.map(([name, value, href]) => html`<li><a href=${href}><span>${name}</span><strong>${value}</strong></a></li>`)}</ul>
    ${all.length || facts.topics.value.size
      ? html`<${Section} title="Events a second, of all topics and purposes">
          <${Rates} path="/v1/rates" marks=${joins(all)} />
        </${Section}>`
      : html`<${Empty} command=${'solarwind fire hello \'"world"\''}>Nothing was fired yet. A producer fires an event on a topic, and a handler states for what purpose it listens. Fire the first one:</${Empty}>`}
  </${Page}>`;
}

function Attention() {
  const found = [...listOf("attention")].sort((a, b) => URGENCY[a.urgency] - URGENCY[b.urgency] || (a.since ?? "").localeCompare(b.since ?? ""));
  if (!found.length) return html`<${Section} title="Attention"><p class="calm"><span aria-hidden="true">✓</span> Nothing needs anybody.</p></${Section}>`;
  return html`<${Section} title="Attention" aside=${plural(found.length, "point")}>
    <ul class="attention">${found.map((each) => html`<li key=${each.at}><${Point} of=${each} /></li>`)}</ul>
  </${Section}>`;
}

function Point({ of }) {
  const where = of.purpose ? pages.purpose(of.topic, of.purpose) : of.topic ? pages.topic(of.topic) : to(["system"]);
  const address = of.kind === "dead letters" ? pages.dead(of.topic, of.purpose) : of.kind.startsWith("webhook") ? to(["webhooks"]) : of.kind === "schedule missed" ? to(["later"]) : where;
  return html`<div class="line">
      <${State} name=${of.urgency} />
      <a href=${address} dir="auto"><strong>${of.kind}</strong>${of.purpose && html` · ${of.purpose}`}${of.topic && html` <span class="quiet">on ${of.topic}</span>`}</a>
      <span class="quiet"><${Time} at=${of.since} none="" /></span>
      <span class="spacer"></span>
      <${Copied} text=${here(of.command)} />
    </div>
    <p dir="auto">${of.text}.</p>
    ${of.error && html`<p class="error" dir="auto">${of.error}</p>`}`;
}
