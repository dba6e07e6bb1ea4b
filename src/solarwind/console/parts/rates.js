// The course of rates, over a time that is chosen and stands in the address.
import { html, plain } from "../core/ui.js";
import { now } from "../core/clock.js";
import { state } from "../core/facts.js";
import { get } from "../core/api.js";
import { route, setQuery } from "../core/router.js";
import { useAnswer } from "./asked.js";
import { Failure, Loading } from "./page.js";
import { RatePlot } from "./plot.js";

const SPANS = [["seconds", "5 minutes", 1, 2], ["ten_seconds", "1 hour", 10, 10], ["minutes", "24 hours", 60, 60]];
const MAX_MARKS = 12;

// `path` is the question; `marks` are drawn where something happened.
export function Rates({ path, marks }) {
  const [name, , step, again] = SPANS.find(([each]) => each === route.value.query.over) ?? SPANS[0];
  const turn = state.value.name === "live" ? Math.floor(now.value / (again * 1000)) : "still";
  const { answer, error } = useAnswer(() => get(path), [path, name, turn]);
  return html`<div class="rates">
    <div class="choice" role="group" aria-label="Over">${SPANS.map(([each, text]) => html`<button type="button" class="small" aria-pressed=${each === name} onClick=${() => setQuery({ over: each })}>${text}</button>`)}</div>
    ${error && html`<${Failure} error=${error} />`}
    ${answer ? html`<${RatePlot} counts=${answer[name]} step=${step} end=${answer.time} marks=${marks} />` : !error && html`<${Loading} />`}
  </div>`;
}

const times = new WeakMap(); // by lists of when versions joined, which are the same as long as they say the same

// When the versions of purposes joined: the last ones.
export function joins(purposes) {
  const marks = [];
  for (const { purpose, versions, version_joined: joined = [] } of purposes) {
    if (!times.has(joined)) times.set(joined, joined.map((each) => Date.parse(each) / 1000));
    times.get(joined).forEach((at, index) => at > (marks.length < MAX_MARKS ? 0 : marks[0].at) && put(marks, { at, purpose, version: versions[index] }));
  }
  return marks.map(({ at, purpose, version }) => ({ at, text: plain(`${purpose} v${version}`) }));
}

// Put one into its place in a short list, whose first goes where it is full.
function put(marks, mark) {
  const place = marks.findLastIndex((each) => each.at <= mark.at) + 1;
  marks.splice(place, 0, mark);
  if (marks.length > MAX_MARKS) marks.shift();
}
