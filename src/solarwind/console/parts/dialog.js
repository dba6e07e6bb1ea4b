// A dialog above the page, closed by Escape.
import { html, useEffect, useRef } from "../core/ui.js";

export function Dialog({ title, close, children }) {
  const place = useRef(null);
  useEffect(() => place.current.showModal(), []);
  return html`<dialog ref=${place} aria-label=${title} onClose=${close}>
    <header><h2>${title}</h2><button type="button" class="small" aria-label="Close" onClick=${() => place.current.close()}>✕</button></header>
    ${children}
  </dialog>`;
}
