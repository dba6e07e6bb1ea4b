// A time, said relative to now; the absolute one is its title.
import { html } from "../core/ui.js";
import { now } from "../core/clock.js";
import { absolute, ago } from "../core/format.js";

export function Time({ at, none = "–" }) {
  if (!at) return html`<span class="quiet">${none}</span>`;
  return html`<time datetime=${at} title=${absolute(at)}>${ago(at, now.value)}</time>`;
}
