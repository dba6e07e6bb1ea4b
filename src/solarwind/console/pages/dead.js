// Dead letters, in groups of the same purpose and kind of error: an inbox to redrive or discard from.
import { html, useEffect, useRef, useSignal } from "../core/ui.js";
import { now } from "../core/clock.js";
import { purposes } from "../core/facts.js";
import { count, plural } from "../core/format.js";
import { pages, route, setQuery, to } from "../core/router.js";
import { rights } from "../core/session.js";
import { turn } from "../parts/asked.js";
import { grouped, kindOf, letterPages } from "../parts/letters.js";
import { Empty, Failure, Loading, Page, Section } from "../parts/page.js";
import { Table } from "../parts/table.js";
import { Time } from "../parts/time.js";
import { Verb } from "../parts/verb.js";

const AGAIN_MS = 5_000;
const AT_ONCE = 20; // purposes that are read by themselves

// Without names all purposes that have dead letters; else those of one.
export function Dead({ names: [topic, purpose] = [] }) {
  const all = purposes().filter((each) => each.dead > 0 && (!topic || (each.topic === topic && each.purpose === purpose)));
  const ordered = all.sort((a, b) => b.dead - a.dead);
  const total = ordered.reduce((sum, each) => sum + each.dead, 0);
  const shown = useSignal(AT_ONCE);
  const title = topic ? `Dead letters of ${purpose}` : "Dead letters";
  const trail = topic ? [["Dead letters", to(["dead"])], [topic, pages.topic(topic)], [purpose, pages.purpose(topic, purpose)]] : [];
  return html`<${Page} title=${title} trail=${trail}>
    ${!rights.value.payloads && html`<p class="quiet">Errors are shown to tokens with the right <code>watch:payloads</code>; without it letters are in one group.</p>`}
    ${ordered.length
      ? html`<p class="quiet">${plural(total, "event")} that ${total === 1 ? "a purpose" : "purposes"} gave up. Redrive hands them out again, as if never tried; discard forgets them.</p>
        ${ordered.slice(0, shown.value).map((each) => html`<${Groups} key=${`${each.topic}/${each.purpose}`} topic=${each.topic} purpose=${each.purpose} dead=${each.dead} only=${Boolean(topic)} />`)}
        ${ordered.length > shown.value && html`<p class="more"><button type="button" onClick=${() => (shown.value += AT_ONCE)}>${plural(ordered.length - shown.value, "more purpose")}</button></p>`}`
      : html`<${Empty} command=${topic ? undefined : "solarwind dead list TOPIC PURPOSE"}>No dead letters${topic ? " here" : ""}. An event becomes one when its handler has failed as often as its purpose tries, or rejects it.</${Empty}>`}
  </${Page}>`;
}

function Groups({ topic, purpose, dead, only }) {
  const found = useSignal({ letters: [], whole: false, error: null, reading: true });
  const pagesOf = useSignal(null);
  const read = useRef({ dead, tick: 0, turn: 0 });
  const more = async (from, over, before = found.value.letters) => {
    found.value = { ...found.value, reading: true };
    try {
      const { value, done } = await from.next();
      if (over.is) return;
      const letters = [...before, ...(value ?? [])];
      found.value = { letters, whole: done || letters.length >= dead, error: null, reading: false };
    } catch (error) {
      if (!over.is) found.value = { ...found.value, error, reading: false };
    }
  };
  useEffect(() => {
    const over = { is: false };
    pagesOf.value = letterPages(topic, purpose);
    more(pagesOf.value, over, []); // what was read before is shown until then
    return () => (over.is = true);
  }, [readingOf(read, dead), turn()]);
  const { letters, whole, error, reading } = found.value;
  const groups = [...grouped(topic, purpose, letters).values()].sort((a, b) => b.count - a.count);
  const of = { topic, purpose };
  const aside = html`<${Verb} name="redrive" of=${of} label=${`Redrive all ${count(dead)}`} small /> <${Verb} name="discard" of=${of} label=${`Discard all ${count(dead)}`} small />`;
  const wanted = route.value.query.error;
  const chosen = wanted ? groups.filter(({ kind }) => kind === wanted) : groups;
  return html`<${Section} title=${html`<a href=${pages.dead(topic, purpose)} dir="auto">${purpose}</a> <span class="quiet">on ${topic}</span>`} aside=${aside}>
    ${error && html`<${Failure} error=${error} />`}
    ${!letters.length && reading && html`<${Loading} />`}
    ${wanted && html`<p><button type="button" class="small" onClick=${() => setQuery({ error: undefined })}>All kinds of error</button></p>`}
    <ul class="groups">${chosen.map((group) => html`<${Group} key=${group.kind} group=${group} whole=${whole} open=${only && (wanted === group.kind || groups.length === 1)} letters=${only ? letters : []} />`)}</ul>
    ${!whole && !error && letters.length > 0 && html`<p class="more">The first ${count(letters.length)} of ${count(dead)} are read. <button type="button" class="small" disabled=${reading} onClick=${() => more(pagesOf.value, { is: false })}>${reading ? "Reading …" : "Read more"}</button></p>`}
  </${Section}>`;
}

// Return the number of the reading: the next one when there are fewer letters, or other ones and some time has passed.
function readingOf(read, dead) {
  const tick = Math.floor(now.value / AGAIN_MS);
  const last = read.current;
  if (dead < last.dead || (dead !== last.dead && tick !== last.tick)) read.current = { dead, tick, turn: last.turn + 1 };
  return read.current.turn;
}

function Group({ group, whole, open, letters }) {
  const { topic, purpose, kind, sample } = group;
  const of = { topic, purpose, matching: kind };
  const number = `${whole ? "" : "at least "}${count(group.count)}`;
  return html`<li>
    <div class="line">
      <strong class="number">${number}</strong>
      <a href=${pages.dead(topic, purpose, kind)} class="error" dir="auto">${group.error}</a>
      <span class="spacer"></span>
      <${Verb} name="redrive" of=${of} small label="Redrive these" /> <${Verb} name="discard" of=${of} small label="Discard these" />
    </div>
    <p class="quiet">first <${Time} at=${group.first} />, last <${Time} at=${group.last} />, after ${plural(sample.attempts, "attempt")}; one of them: <a href=${pages.event(topic, sample.event.id)} class="id">${sample.event.id}</a></p>
    ${open && html`<${Letters} topic=${topic} purpose=${purpose} letters=${letters.filter((each) => kindOf(each.error) === kind)} />`}
  </li>`;
}

function Letters({ topic, purpose, letters }) {
  const picked = useSignal(new Set());
  const ids = [...picked.value].filter((id) => letters.some((each) => each.event.id === id));
  const columns = [
    { name: "id", label: "Event", value: (each) => each.event.id, cell: (each) => html`<a href=${pages.event(topic, each.event.id)} class="id">${each.event.id}</a>` },
    { name: "time", label: "Dead since", value: (each) => each.time, cell: (each) => html`<${Time} at=${each.time} />` },
    { name: "attempts", label: "Attempts", number: true, value: (each) => each.attempts },
    { name: "error", label: "Error", value: (each) => each.error, cell: (each) => html`<span class="error" dir="auto">${each.error}</span>` },
  ];
  const none = !ids.length && "Select some first.";
  return html`<p class="buttons">
      <${Verb} name="redrive" of=${{ topic, purpose, ids }} label=${`Redrive ${count(ids.length)} selected`} small disabled=${none} after=${() => (picked.value = new Set())} />
      <${Verb} name="discard" of=${{ topic, purpose, ids }} label=${`Discard ${count(ids.length)} selected`} small disabled=${none} after=${() => (picked.value = new Set())} />
    </p>
    <${Table} label=${`Dead letters of ${purpose}`} columns=${columns} rows=${letters} keyOf=${(each) => each.event.id} sort="time" pick=${picked} />`;
}
