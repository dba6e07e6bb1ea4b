// States: a sign, a word and a colour. The colour alone says nothing.
import { html } from "../core/ui.js";
import { count } from "../core/format.js";

const LOOK = {
  running: ["good", "●"], live: ["good", "●"], current: ["good", "●"], settled: ["good", "✓"], direct: ["plain", "→"],
  paused: ["quiet", "‖"], held: ["quiet", "‖"], drained: ["quiet", "○"], draining: ["warn", "◐"], leaving: ["quiet", "◐"],
  "nobody up": ["bad", "○"], failing: ["bad", "✕"], dead: ["bad", "✕"], refused: ["bad", "✕"], silent: ["bad", "?"],
  pending: ["plain", "…"], "in hand": ["plain", "▶"], waiting: ["warn", "↻"], ended: ["quiet", "■"],
  expired: ["quiet", "–"], discarded: ["quiet", "–"], copied: ["plain", "»"], "not for it": ["quiet", "–"],
  failed: ["bad", "✕"], rejected: ["bad", "✕"], lost: ["bad", "?"], later: ["warn", "↻"],
  shadow: ["plain", "◌"], high: ["bad", "▲"], medium: ["warn", "◆"], low: ["quiet", "▽"],
};

export function State({ name, title }) {
  const [look, sign] = LOOK[name] ?? (name.startsWith("ramping") ? ["warn", "◔"] : ["plain", "·"]);
  return html`<span class=${`state ${look}`} title=${title}><span aria-hidden="true">${sign}</span> ${name}</span>`;
}

// How full something is: a bar, and the numbers beside it.
export function Gauge({ value, of, label }) {
  const part = of ? Math.min(1, value / of) : 0;
  return html`<span class="gauge">
    <meter min="0" max="1" high="0.9" value=${part} aria-label=${label}></meter>
    <span class="number">${count(value)} of ${count(of)}</span>
  </span>`;
}
