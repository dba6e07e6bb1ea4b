// Small pictures of numbers, as SVG; each says in words what it shows.
import { html } from "../core/ui.js";
import { seconds } from "../core/format.js";

export function Spark({ values, label, width = 90, height = 20 }) {
  if (!values || !values.some(Boolean)) return null;
  const top = Math.max(...values);
  const step = width / Math.max(1, values.length - 1);
  const points = values.map((value, at) => `${(at * step).toFixed(1)},${(height - 1 - (value / top) * (height - 3)).toFixed(1)}`);
  return html`<svg class="spark" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${label}>
    <polyline points=${points.join(" ")} />
  </svg>`;
}

// Times in logarithmic buckets: `counts`, of times up to each of the `bounds`.
const BOUNDS = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((power) => [1, 3].map((each) => (each / 10_000) * 10 ** power));

export function Histogram({ counts, sum, label, none = "Nothing was handled since the dispatcher started." }) {
  const total = counts.reduce((a, b) => a + b, 0);
  if (!total) return html`<p class="quiet">${none}</p>`;
  const first = counts.findIndex(Boolean);
  const last = counts.findLastIndex(Boolean);
  const shown = counts.slice(first, last + 1);
  const top = Math.max(...shown);
  return html`<figure class="histogram" aria-label=${label}>
    <ol>${shown.map((each, at) => html`<li title=${`${each} up to ${bound(first + at)}`}>
      <span class="bar" style=${{ height: `${Math.max(each ? 2 : 0, (each / top) * 60)}px` }}></span>
      <span class="bound">${bound(first + at)}</span>
    </li>`)}</ol>
    <figcaption>mean ${seconds(sum / total)} · half within ${seconds(quantile(counts, 0.5))} · 95 % within ${seconds(quantile(counts, 0.95))} · of ${total.toLocaleString("en-US")}</figcaption>
  </figure>`;
}

const bound = (at) => (at < BOUNDS.length ? seconds(BOUNDS[at]) : "more");

function quantile(counts, part) {
  let left = part * counts.reduce((a, b) => a + b, 0);
  for (let at = 0; at < BOUNDS.length; at += 1) {
    const before = at ? BOUNDS[at - 1] : 0;
    if (counts[at] && left <= counts[at]) return before + ((BOUNDS[at] - before) * left) / counts[at];
    left -= counts[at];
  }
  return BOUNDS.at(-1);
}
