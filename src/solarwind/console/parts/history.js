// A topic's history in pages, from a time and with a key that stand in the address; and its newest events as they come.
import { html, useEffect, useSignal } from "../core/ui.js";
import { get, topicPath } from "../core/api.js";
import { facts, returns, state } from "../core/facts.js";
import { bytes, bytesIn, count, plural } from "../core/format.js";
import { writeExactly } from "../core/json.js";
import { pages, route, setQuery } from "../core/router.js";
import { download } from "./download.js";
import { Failure } from "./page.js";
import { Time } from "./time.js";

const PAGE = 100;
const TAIL = 50;
const SHOWN = 200; // characters of a payload
const SAVED = 10_000; // events in a file,
const SAVED_CHARACTERS = 50_000_000; // and so much of them, about
const SINCE = [["beginning", "the beginning"], ["7d", "7 days ago"], ["1d", "a day ago"], ["1h", "an hour ago"], ["5m", "5 minutes ago"]];

const path = (topic) => `${topicPath(topic)}/events`;

export function brief(event) {
  if (event.data_base64 !== undefined) return `${event.datacontenttype ?? "bytes"}, ${bytes(bytesIn(event.data_base64))}`;
  if (event.datacontenttype?.includes("hidden=true")) return "(needs the right watch:payloads)";
  const text = writeExactly(event.data ?? null);
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}

export function EventList({ topic, events, label }) {
  if (!events.length) return html`<p class="quiet">None.</p>`;
  return html`<div class="table" tabindex="0" role="region" aria-label=${label}><table>
    <thead><tr><th scope="col">Fired</th><th scope="col">Id</th><th scope="col">Key</th><th scope="col">Payload</th></tr></thead>
    <tbody>${events.map((event) => html`<tr key=${event.id}>
      <td data-label="Fired"><${Time} at=${event.time} /></td>
      <td data-label="Id"><a href=${pages.event(topic, event.id)} class="id" dir="auto">${event.id}</a></td>
      <td data-label="Key" class="wide">${event.partitionkey && html`<span class="wrap" dir="auto">${event.partitionkey}</span>`}</td>
      <td data-label="Payload"><code class="brief" dir="ltr">${brief(event)}</code></td>
    </tr>`)}</tbody>
  </table></div>`;
}

// The newest events. They are asked for whenever more were fired, and not otherwise.
export function Tail({ topic }) {
  const fired = facts.topics.value.get(topic)?.fired ?? 0;
  const found = useSignal({ events: [], error: null });
  const live = state.value.name === "live";
  useEffect(() => {
    let over = false;
    get(path(topic), fired > TAIL ? { after: fired - TAIL - 1, limit: TAIL } : { limit: TAIL })
      .catch(() => get(path(topic), { since: "1h", limit: TAIL })) // what stood there is trimmed
      .then(
        ({ events }) => over || (found.value = { events: [...events].reverse(), error: null }),
        (error) => over || (found.value = { ...found.value, error }),
      );
    return () => (over = true);
  }, [topic, live ? fired : "still", returns.value]);
  return html`${found.value.error && html`<${Failure} error=${found.value.error} />`}
    <${EventList} topic=${topic} events=${found.value.events} label="Newest events" />`;
}

export function History({ topic }) {
  const { since = "beginning", key = "" } = route.value.query;
  const found = useSignal({ events: [], next: null, error: null, reading: false });
  const read = async (query, before, over = { is: false }) => {
    found.value = { ...found.value, reading: true };
    try {
      const { events, next } = await get(path(topic), query);
      if (!over.is) found.value = { events: [...before, ...events], next, error: null, reading: false };
    } catch (error) {
      if (!over.is) found.value = { ...found.value, error, reading: false };
    }
  };
  useEffect(() => {
    const over = { is: false };
    read({ since, key, limit: PAGE }, [], over);
    return () => (over.is = true);
  }, [topic, since, key, returns.value]);
  const { events, next, error, reading } = found.value;
  const times = SINCE.some(([value]) => value === since) ? SINCE : [[since, since], ...SINCE]; // the address may say another
  const jump = (event) => {
    event.preventDefault();
    const id = event.target.elements.id.value.trim();
    if (id) location.hash = pages.event(topic, id).slice(1);
  };
  return html`<div class="filters">
      <label>From <select onChange=${(event) => setQuery({ since: event.target.value })}>${times.map(([value, text]) => html`<option value=${value} selected=${value === since}>${text}</option>`)}</select></label>
      <label>Key <input type="search" value=${key} onChange=${(event) => setQuery({ key: event.target.value })} /></label>
      <form onSubmit=${jump}><label>Id <input name="id" type="search" autocomplete="off" /></label> <button type="submit" class="small">Open</button></form>
    </div>
    ${error && html`<${Failure} error=${error} />`}
    <${EventList} topic=${topic} events=${events} label="History" />
    <p class="more">${count(events.length)} ${events.length === 1 ? "event is" : "events are"} shown, in the order accepted.
      ${events.length > 0 && html` <${Saving} topic=${topic} query=${{ since, key }} /> `}
      ${next && html` <button type="button" class="small" disabled=${reading} onClick=${() => read({ after: next, key, limit: PAGE }, events)}>Next page</button>`}</p>`;
}

// The events as a file, a CloudEvent a line: asked for page by page, as far as a page of the browser should hold.
function Saving({ topic, query }) {
  const how = useSignal("");
  const reads = useSignal(false);
  const save = async () => {
    const lines = [];
    let size = 0;
    let after;
    reads.value = true;
    try {
      do {
        how.value = `Reading, ${count(lines.length)} so far …`;
        const page = await get(path(topic), { ...(after ? { after, key: query.key } : query), limit: PAGE * 10 });
        for (const event of page.events) size += lines[lines.push(writeExactly(event)) - 1].length;
        after = page.next;
      } while (after && lines.length < SAVED && size < SAVED_CHARACTERS);
      download(`${topic}.ndjson`, lines.map((each) => `${each}\n`).join(""), "application/x-ndjson");
      how.value = `${plural(lines.length, "event")} ${lines.length === 1 ? "is" : "are"} in the file${after ? ": there are more behind them" : ""}.`;
    } catch (error) {
      how.value = error.message;
    }
    reads.value = false;
  };
  return html`<button type="button" class="small" disabled=${reads.value} onClick=${save}>Download NDJSON</button> <span role="status">${how.value}</span>`;
}
