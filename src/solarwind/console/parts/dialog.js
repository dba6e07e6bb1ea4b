// A dialog above the page, closed by Escape, and where the browser goes back or forward: what it is about is gone then.
import { html, useEffect, useRef } from "../core/ui.js";

export function Dialog({ title, close, children }) {
  const place = useRef(null);
  useEffect(() => {
    const dialog = place.current;
    const leave = () => dialog.close();
    dialog.showModal();
    addEventListener("hashchange", leave);
    return () => removeEventListener("hashchange", leave);
  }, []);
  return html`<dialog ref=${place} aria-label=${title} onClose=${close}>
    <header><h2>${title}</h2><button type="button" class="small" aria-label="Close" onClick=${() => place.current.close()}>✕</button></header>
    ${children}
  </dialog>`;
}
