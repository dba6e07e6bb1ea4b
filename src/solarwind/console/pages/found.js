// What a search found: purposes and topics by their names, an event by its id or key or a field of its payload, and dead
// letters by their errors. It says how far it has looked.
import { html } from "../core/ui.js";
import { get, topicPath } from "../core/api.js";
import { purposes, topics } from "../core/facts.js";
import { count, plural } from "../core/format.js";
import { pages, route } from "../core/router.js";
import { rights } from "../core/session.js";
import { useAnswer } from "../parts/asked.js";
import { EventList } from "../parts/history.js";
import { grouped, letterPages } from "../parts/letters.js";
import { Empty, Failure, Loading, Page, Section } from "../parts/page.js";
import { has, parseQuery } from "../parts/query.js";
import { PurposeTable } from "./purposes.js";

const MAX_TOPICS = 20; // that are looked into, the busiest first
const MAX_EVENTS = 1_000; // the newest of each
const ID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/; // others are asked for as `id:`
const includes = (text, wanted) => text.toLowerCase().includes(wanted.toLowerCase());

export function Found() {
  const text = route.value.query.q ?? "";
  const query = parseQuery(text);
  const byName = !query.error && !query.key && !query.payload.length;
  const own = purposes().filter((each) => byName && matches(each, query));
  const named = topics().filter((each) => byName && !query.purpose && (query.topic ? includes(each.topic, query.topic) : query.words.length > 0 && query.words.every((word) => includes(each.topic, word))));
  return html`<${Page} title=${`Search: ${text}`}>
    ${!rights.value.payloads && (query.error || query.payload.length > 0) && html`<p class="quiet">Errors and payloads are shown to tokens with the right <code>watch:payloads</code>: nothing is found by them with this one.</p>`}
    ${byName && html`<${ById} id=${query.id ?? query.words.find((word) => ID.test(word)) ?? ""} />`}
    ${own.length > 0 && html`<${Section} title="Purposes" aside=${count(own.length)}><${PurposeTable} label="Purposes found" rows=${own} /></${Section}>`}
    ${named.length > 0 && html`<${Section} title="Topics" aside=${count(named.length)}><ul>${named.slice(0, 100).map(({ topic }) => html`<li><a href=${pages.topic(topic)}>${topic}</a></li>`)}</ul></${Section}>`}
    ${(query.key || query.payload.length > 0) && html`<${Events} query=${query} text=${text} />`}
    ${query.error && html`<${Letters} query=${query} text=${text} />`}
    <${Empty}>A search finds purposes and topics by words in their names, and an event by an id that the dispatcher made. Besides there are <code>purpose:</code>, <code>topic:</code>, <code>id:</code>, <code>key:</code>, <code>error:</code> and fields of payloads, such as <code>payload.video_id:17</code>.</${Empty}>
  </${Page}>`;
}

const matches = (each, { purpose, topic, words, id }) =>
  !id && (purpose || topic || words.length > 0) &&
  (!purpose || includes(each.purpose, purpose)) && (!topic || includes(each.topic, topic)) &&
  words.every((word) => includes(`${each.purpose} ${each.topic}`, word));

function ById({ id }) {
  const { answer } = useAnswer(async () => (id ? get(`/v1/trace/${encodeURIComponent(id)}`, { limit: 1 }) : null), [id]);
  const event = answer?.events[0];
  return event && event.id === id ? html`<${Section} title="Event"><${EventList} topic=${event.type} events=${[event]} label="The event" /></${Section}>` : null;
}

function Events({ query, text }) {
  const busiest = topics().filter((each) => !query.topic || each.topic === query.topic).sort((a, b) => b.fired - a.fired).slice(0, MAX_TOPICS);
  const look = async () => {
    const found = [];
    for (const { topic, fired } of busiest) {
      const path = `${topicPath(topic)}/events`;
      const start = fired > MAX_EVENTS && !query.key ? { after: fired - MAX_EVENTS - 1 } : {};
      const { events } = await get(path, { ...start, key: query.key, limit: MAX_EVENTS }).catch(() => ({ events: [] }));
      const matching = events.filter((event) => query.payload.every((field) => has(event.data, field)));
      if (matching.length) found.push({ topic, events: matching.reverse().slice(0, 100) });
    }
    return found;
  };
  const { answer, error, asking } = useAnswer(look, [text]);
  return html`<${Section} title="Events" aside=${`in up to ${count(MAX_EVENTS)} events of ${plural(busiest.length, "topic")}`}>
    ${error && html`<${Failure} error=${error} />`}
    ${asking ? html`<${Loading} />` : !answer?.length && html`<p class="quiet">None. Name a topic, as topic:video.uploaded, to look into that one.</p>`}
    ${(answer ?? []).map(({ topic, events }) => html`<h3><a href=${pages.topic(topic)}>${topic}</a></h3><${EventList} topic=${topic} events=${events} label=${`Events of ${topic}`} />`)}
  </${Section}>`;
}

function Letters({ query, text }) {
  const where = purposes().filter((each) => each.dead > 0 && (!query.purpose || includes(each.purpose, query.purpose)) && (!query.topic || each.topic === query.topic)).slice(0, MAX_TOPICS);
  const look = async () => {
    const found = [];
    for (const { topic, purpose } of where) {
      const { value = [] } = await letterPages(topic, purpose).next();
      found.push(...grouped(topic, purpose, value.filter((each) => includes(each.error, query.error))).values());
    }
    return found;
  };
  const { answer, error, asking } = useAnswer(look, [text]);
  return html`<${Section} title="Dead letters" aside=${`in up to 1,000 of ${plural(where.length, "purpose")}`}>
    ${error && html`<${Failure} error=${error} />`}
    ${asking && html`<${Loading} />`}
    <ul class="groups">${(answer ?? []).map((group) => html`<li>
      <a href=${pages.purpose(group.topic, group.purpose)} dir="auto">${group.purpose}</a> <span class="quiet">on ${group.topic}</span>
      <div class="line"><strong class="number">${count(group.count)}</strong> <a class="error" dir="auto" href=${pages.dead(group.topic, group.purpose, group.kind)}>${group.error}</a></div>
    </li>`)}</ul>
    ${!asking && !answer?.length && html`<p class="quiet">None.</p>`}
  </${Section}>`;
}
