// A text to be copied, such as a command.
import { html, useSignal } from "../core/ui.js";

export function Copied({ text, label = "Command" }) {
  const done = useSignal(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    done.value = true;
    setTimeout(() => (done.value = false), 2_000);
  };
  return html`<div class="copied">
    <code tabindex="0" aria-label=${label}>${text}</code>
    ${navigator.clipboard && html`<button type="button" class="small" onClick=${copy}>${done.value ? "Copied" : "Copy"}</button>`}
  </div>`;
}
