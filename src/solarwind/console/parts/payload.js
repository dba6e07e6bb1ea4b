// A payload: a tree that is opened part by part, or its text. A part of a large one is drawn when it is asked for.
import { html, useSignal } from "../core/ui.js";
import { bytes, bytesIn, count } from "../core/format.js";
import { Exact, writeExactly } from "../core/json.js";
import { Copied } from "./copied.js";

const AT_ONCE = 100; // parts of a list or an object
const OPEN_DEPTH = 2;
const DUMPED = 258; // bytes of a payload that is no text: they are so many characters of base64
const MAX_TEXT = 2_000; // characters of one text

export function Payload({ event }) {
  const text = useSignal(false);
  if (event.data_base64 !== undefined) return html`<${Binary} text=${event.data_base64} type=${event.datacontenttype} />`;
  if (event.datacontenttype?.includes("hidden=true"))
    return html`<p class="quiet">The payload is shown to tokens with the right <code>watch:payloads</code>.</p>`;
  const value = event.data ?? null;
  return html`<div class="payload">
    <div class="aside"><button type="button" class="small" aria-pressed=${text.value} onClick=${() => (text.value = !text.value)}>As text</button></div>
    ${text.value ? html`<${Copied} text=${writeExactly(value, 2)} label="Payload" />` : html`<div class="tree" tabindex="0" role="region" aria-label="Payload"><${Value} value=${value} depth=${0} /></div>`}
  </div>`;
}

function Binary({ text, type }) {
  const size = bytesIn(text);
  const start = atob(text.slice(0, DUMPED / 3 * 4));
  const lines = [];
  for (let at = 0; at < start.length; at += 16) {
    const part = [...start.slice(at, at + 16)].map((each) => each.charCodeAt(0));
    const hex = part.map((each) => each.toString(16).padStart(2, "0")).join(" ");
    const shown = part.map((each) => (each > 31 && each < 127 ? String.fromCharCode(each) : ".")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(47)}  ${shown}`);
  }
  return html`<p>${bytes(size)} of ${type ?? "bytes"}${size > DUMPED && `, of which these are the first ${DUMPED}`}:</p>
    <pre tabindex="0" aria-label="Payload">${lines.join("\n")}</pre>`;
}

function Value({ value, depth }) {
  if (value instanceof Exact) return html`<span class="v-number">${value.text}</span>`;
  if (value === null || typeof value === "boolean") return html`<span class="v-word">${String(value)}</span>`;
  if (typeof value === "number") return html`<span class="v-number">${value}</span>`;
  if (typeof value === "string") return html`<${Text} text=${value} />`;
  return html`<${Parts} of=${value} depth=${depth} />`;
}

function Text({ text }) {
  const whole = useSignal(false);
  if (text.length <= MAX_TEXT || whole.value) return html`<span class="v-text" dir="auto">"${text}"</span>`;
  return html`<span class="v-text" dir="auto">"${text.slice(0, MAX_TEXT)}"</span>${" "}
    <button type="button" class="small" onClick=${() => (whole.value = true)}>all ${count(text.length)} characters</button>`;
}

function Parts({ of, depth }) {
  const list = Array.isArray(of);
  const parts = Object.entries(of);
  const open = useSignal(depth < OPEN_DEPTH);
  const shown = useSignal(AT_ONCE);
  const size = `${count(parts.length)} ${list ? (parts.length === 1 ? "item" : "items") : parts.length === 1 ? "field" : "fields"}`;
  if (!parts.length) return html`<span class="quiet">${list ? "[ ]" : "{ }"}</span>`;
  return html`<button type="button" class="fold" aria-expanded=${open.value} onClick=${() => (open.value = !open.value)}>${open.value ? "▾" : "▸"} ${size}</button>
    ${open.value && html`<ul>
      ${parts.slice(0, shown.value).map(([name, value]) => html`<li key=${name}><span class="name" dir="auto">${name}</span> <${Value} value=${value} depth=${depth + 1} /></li>`)}
      ${parts.length > shown.value && html`<li><button type="button" class="small" onClick=${() => (shown.value += 10 * AT_ONCE)}>${count(parts.length - shown.value)} more</button></li>`}
    </ul>`}`;
}
