// A time, said relative to now; the absolute one is its title.
import { html, useComputed } from "../core/ui.js";
import { now } from "../core/clock.js";
import { absolute, ago } from "../core/format.js";

export function Time({ at, none = "–" }) {
  if (!at) return html`<span class="quiet">${none}</span>`;
  return html`<${Known} at=${at} />`;
}

// The text alone changes as time passes, and only when it is another.
function Known({ at }) {
  const text = useComputed(() => ago(at, now.value));
  return html`<time datetime=${at} title=${absolute(at)}>${text}</time>`;
}
