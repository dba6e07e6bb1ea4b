// A button for a verb, and the dialog that says what it will touch, and the commands that do the same, before it does.
import { html, signal, useEffect, useSignal } from "../core/ui.js";
import { may } from "../core/session.js";
import { commandOf, curlOf, operation, perform } from "../core/verbs.js";
import { askAgain, turn } from "./asked.js";
import { VERBS } from "./verbs.js";
import { Copied } from "./copied.js";
import { Dialog } from "./dialog.js";
import { say } from "./toast.js";

const confirming = signal(null); // the verb whose dialog is open
const MAX_IDS = 50; // in a command that is shown
const PREVIEW_MS = 250; // after the last change of a field

// `of` are the arguments that are known; those that are asked for are fields of the verb. `disabled` says why not.
export function Verb({ name, of, label, disabled, after, small }) {
  const verb = VERBS[name];
  const { right } = operation(verb.operation ?? name);
  const lacks = may(right, of) ? disabled : `This needs a token with the right ${right}.`;
  return html`<button type="button" class=${`${small ? "small " : ""}${verb.danger ? "danger" : ""}`} disabled=${Boolean(lacks)} title=${lacks || undefined}
      onClick=${() => (confirming.value = { name, of, after })}>${label ?? verb.label}</button>`;
}

// The dialog stays where its button goes meanwhile, as with the last dead letter of a group.
export function Confirming() {
  return confirming.value && html`<${Confirm} ...${confirming.value} close=${() => (confirming.value = null)} />`;
}

function Confirm({ name, of, close, after }) {
  const verb = VERBS[name];
  const asked = (verb.fields ?? []).filter((field) => !(field.name in of) || field.always);
  const given = useSignal({ ...Object.fromEntries(asked.map((field) => [field.name, initial(field, of)])), ...of });
  const touches = useSignal({ text: "", none: false, of: "" });
  const work = useSignal({ busy: false, error: "", progress: "" });
  const { version, ...touched } = verb.arguments ? verb.arguments(given.value) : given.value; // whichever version it goes to
  const asks = JSON.stringify(touched);
  const counting = verb.touches && touches.value.of !== asks; // nothing is done before its number is said
  useEffect(() => {
    if (!verb.touches) return undefined;
    let over = false;
    const preview = async () => {
      try {
        const found = await verb.touches(touched);
        if (!over) touches.value = { ...found, of: asks };
      } catch (error) {
        if (!over) touches.value = { text: error.message, none: true, of: asks };
      }
    };
    const timer = setTimeout(preview, touches.value.text ? PREVIEW_MS : 0);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [asks, turn()]);

  const submit = async (event) => {
    event.preventDefault();
    work.value = { busy: true, error: "", progress: "" };
    try {
      const wanted = verb.arguments ? verb.arguments(given.value) : given.value;
      const note = (progress) => (work.value = { ...work.value, progress });
      const answer = await (verb.run ? verb.run(wanted, given.value, note) : perform(verb.operation ?? name, wanted));
      say(verb.done(answer, given.value));
      close();
      after?.(answer);
    } catch (error) {
      work.value = { busy: false, error: error.message, progress: "" };
    }
    askAgain();
  };
  return html`<${Dialog} title=${verb.title ? verb.title(of) : verb.label} close=${close}>
    <form class="verb" onSubmit=${submit}>
      <p>${verb.says(given.value)}</p>
      ${asked.map((field) => html`<${Field} field=${field} given=${given} />`)}
      ${verb.touches && html`<p class="touches" role="status">${counting ? "Counting …" : touches.value.text}</p>`}
      ${work.value.progress && html`<p role="status">${work.value.progress}</p>`}
      ${work.value.error && html`<p class="failure" role="alert">${work.value.error}</p>`}
      <p class="buttons">
        <button type="submit" class=${verb.danger ? "danger strong" : "strong"} disabled=${work.value.busy || counting || touches.value.none}>${work.value.busy ? "Working …" : verb.label}</button>
        <button type="button" onClick=${close}>Cancel</button>
      </p>
      <${Commands} name=${name} given=${given.value} />
    </form>
  </${Dialog}>`;
}

const initial = (field, of) => (typeof field.value === "function" ? field.value(of) : field.value ?? "");

function Field({ field, given }) {
  const id = `field-${field.name}`;
  const value = given.value[field.name];
  const set = (event) => {
    const chosen = field.type === "checkbox" ? event.target.checked : event.target.value;
    given.value = { ...given.value, [field.name]: chosen };
  };
  const input =
    field.type === "text area"
      ? html`<textarea id=${id} rows="6" spellcheck=${false} value=${value} onInput=${set} />`
      : field.options
        ? html`<select id=${id} value=${value} onChange=${set}>${field.options.map(([option, text]) => html`<option value=${option} selected=${option === value}>${text}</option>`)}</select>`
        : html`<input id=${id} type=${field.type ?? "text"} checked=${field.type === "checkbox" ? value : undefined} value=${field.type === "checkbox" ? undefined : value}
            min=${field.min} max=${field.max} step=${field.step} placeholder=${field.placeholder} required=${field.required} autocomplete="off" onInput=${set} />`;
  return html`<div class=${field.type === "checkbox" ? "field check" : "field"}>
    <label for=${id}>${field.label}</label>${input}${field.help && html`<small>${field.help}</small>`}
  </div>`;
}

function Commands({ name, given }) {
  const verb = VERBS[name];
  const wanted = verb.arguments ? verb.arguments(given) : given;
  if (wanted.matching || wanted.ids?.length > MAX_IDS)
    return html`<p class="quiet">The command line takes up to ${MAX_IDS} ids at a time, or <code>--all</code>; it has no filter by error.</p>`;
  const command = commandOf(verb.operation ?? name, wanted);
  return html`<details class="commands"><summary>The command for this</summary>
    ${command && html`<${Copied} text=${command} label="Command line" />`}
    <${Copied} text=${curlOf(verb.operation ?? name, wanted)} label="curl" />
  </details>`;
}
