// The field at the top: what is typed there is a page of its own.
import { html } from "../core/ui.js";
import { go, route, to } from "../core/router.js";

export function Search() {
  const submit = (event) => {
    event.preventDefault();
    const { value } = event.target.elements.search;
    if (value.trim()) go(to(["search"], { q: value.trim() }));
  };
  const { parts, query } = route.value;
  return html`<form role="search" onSubmit=${submit}>
    <input id="search" name="search" type="search" autocomplete="off" spellcheck=${false} aria-label="Search" placeholder="Search ( / )"
      title="A name or an id, or purpose:, topic:, key:, error:, payload.video_id:" value=${parts[0] === "search" ? query.q : ""} />
  </form>`;
}
