// What was done, said for some seconds.
import { html, signal } from "../core/ui.js";

const SHOWN_MS = 6_000;
const said = signal([]);

export function say(text) {
  const one = { text };
  said.value = [...said.value, one];
  setTimeout(() => (said.value = said.value.filter((each) => each !== one)), SHOWN_MS);
}

export const Toasts = () => html`<div class="toasts" role="status">${said.value.map(({ text }) => html`<p>${text}</p>`)}</div>`;
