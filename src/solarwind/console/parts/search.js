// The field at the top: what is typed there is a page of its own. Below it stands what it may go on with: the arrows choose
// of that, Enter or a click takes it, Escape leaves it.
import { html, useEffect, useRef, useSignal } from "../core/ui.js";
import { go, route, to } from "../core/router.js";
import { suggestions } from "./complete.js";

const NONE = { options: [], at: -1, open: false };

export function Search() {
  const { parts, query } = route.value;
  const shown = parts[0] === "search" ? query.q : "";
  const text = useSignal(shown);
  const list = useSignal(NONE);
  const turn = useRef(0); // of the question whose answer is shown
  const field = useRef(null);
  useEffect(() => {
    text.value = shown;
    list.value = NONE;
  }, [shown, parts.join("/")]);

  const suggest = async (value) => {
    turn.current += 1;
    const mine = turn.current;
    const options = await suggestions(value);
    if (mine === turn.current && document.activeElement === field.current) list.value = { options, at: -1, open: options.length > 0 };
  };
  const close = () => {
    turn.current += 1;
    list.value = NONE;
  };
  const type = (value) => {
    text.value = value;
    list.value = { ...list.value, at: -1 }; // what was chosen went on from another text
    suggest(value);
  };
  const choose = ({ href, then }) => {
    if (then !== undefined) return type(then);
    close();
    text.value = "";
    field.current.blur(); // the page is what is wanted now
    return go(href);
  };
  const submit = (event) => {
    event.preventDefault();
    const { options, at } = list.value;
    if (options[at]) return choose(options[at]);
    close();
    return text.value.trim() && go(to(["search"], { q: text.value.trim() }));
  };
  const press = (event) => {
    if (event.isComposing) return; // the keys are those of an input method
    const { options, at, open } = list.value;
    if (event.key === "Escape" && open) close();
    else if (event.key === "ArrowDown" && !open) suggest(text.value);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const places = options.length + 1; // the field itself is one
      if (open) list.value = { ...list.value, at: ((at + 1 + (event.key === "ArrowDown" ? 1 : places - 1)) % places) - 1 };
    } else if (event.key === "Tab" && open && options[at]?.then !== undefined) choose(options[at]);
    else return;
    event.preventDefault();
  };
  const { options, at, open } = list.value;
  return html`<form role="search" onSubmit=${submit}>
    <input id="search" ref=${field} name="search" type="search" autocomplete="off" spellcheck=${false} placeholder="Search ( / )"
      aria-label="Search" role="combobox" aria-autocomplete="list" aria-expanded=${open ? "true" : "false"} aria-controls="suggested"
      aria-activedescendant=${open && at >= 0 ? `suggested-${at}` : undefined}
      title="A name or an id, or purpose:, topic:, key:, error:, payload.video_id:" value=${text.value}
      onInput=${(event) => type(event.target.value)} onFocus=${(event) => suggest(event.target.value)} onKeyDown=${press} onBlur=${close} />
    <ul id="suggested" role="listbox" aria-label="Suggestions" hidden=${!open}>${options.map((each, number) => html`<li key=${each.text + each.hint} id=${`suggested-${number}`} role="option" aria-selected=${number === at ? "true" : "false"}
      onMouseDown=${(event) => event.preventDefault()} onClick=${() => choose(each)}><span dir="auto">${each.text}</span><small dir="auto">${each.hint}</small></li>`)}</ul>
  </form>`;
}
