// The frame: who is signed in, the way to the pages, what is live, and the page of this address.
import { Component, html, useEffect } from "./core/ui.js";
import { facts, known, pausedByKey, state } from "./core/facts.js";
import { KEYS, PLACES, helps } from "./core/keys.js";
import { route, to } from "./core/router.js";
import { refusal, rights, signIn, signOut, token } from "./core/session.js";
import { nextTheme, theme } from "./core/theme.js";
import { Dialog } from "./parts/dialog.js";
import { Failure } from "./parts/page.js";
import { Search } from "./parts/search.js";
import { SignIn } from "./parts/signin.js";
import { Toasts } from "./parts/toast.js";
import { Confirming } from "./parts/verb.js";
import { Overview } from "./pages/overview.js";
import { PurposePage, Purposes } from "./pages/purposes.js";
import { Dead } from "./pages/dead.js";
import { Topics } from "./pages/topics.js";
import { TopicPage } from "./pages/topic.js";
import { EventPage } from "./pages/event.js";
import { TracePage } from "./pages/trace.js";
import { Instances } from "./pages/instances.js";
import { Later } from "./pages/later.js";
import { RolloutPage, Rollouts } from "./pages/rollouts.js";
import { WebhookPage, Webhooks } from "./pages/webhooks.js";
import { System } from "./pages/system.js";
import { FlowMap } from "./pages/map.js";
import { Found } from "./pages/found.js";

// By the first part of the address, and how many follow it.
const PAGES = {
  "": { 0: Overview },
  map: { 0: FlowMap },
  topics: { 0: Topics, 1: TopicPage },
  purposes: { 0: Purposes, 2: PurposePage },
  dead: { 0: Dead, 2: Dead },
  events: { 2: EventPage },
  trace: { 1: TracePage },
  instances: { 0: Instances },
  later: { 0: Later },
  rollouts: { 0: Rollouts, 2: RolloutPage },
  webhooks: { 0: Webhooks, 3: WebhookPage },
  system: { 0: System },
  search: { 0: Found },
};

export function App() {
  const own = rights.value;
  if (!own) return html`<${SignIn} why=${refusal.value} signIn=${signIn} />`;
  if (!own.watch)
    return html`<main class="start"><h1>Solar Wind</h1><p>The token “${own.name}” may not watch. Make one with <code>solarwind token create NAME --watch</code>.</p>
      <button type="button" onClick=${() => signOut()}>Use another token</button></main>`;
  return html`<a class="skip" href="#main" onClick=${skip}>To the content</a>
    <${Header} own=${own} />
    <${Live} />
    <main id="main" tabindex="-1"><${Place} /></main>
    <${Confirming} />
    <${Toasts} />
    ${helps.value && html`<${Help} />`}`;
}

function skip(event) {
  event.preventDefault(); // the address is a page's
  document.querySelector("#main").focus();
}

function Place() {
  const { parts } = route.value;
  const [first = "", ...rest] = parts;
  const Page = PAGES[first]?.[rest.length];
  useEffect(() => scrollTo(0, 0), [parts.join("/")]);
  if (!Page) return html`<h1>There is no such page</h1><p><a href=${to([])}>Overview</a></p>`;
  if (!known.value) return html`<p class="quiet" role="status">Reading the facts …</p>`;
  return html`<${Guarded} key=${parts.join("/")}><${Page} key=${parts.join("/")} names=${rest} /><//>`;
}

// A page that fails says so, and the others still work.
class Guarded extends Component {
  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }
  render({ children }, { error }) {
    return error ? html`<h1>This page failed</h1><${Failure} error=${error} />` : children;
  }
}

function Header({ own }) {
  const { parts } = route.value;
  const dead = [...facts.purposes.value.values()].reduce((sum, each) => sum + (each.dead ?? 0), 0);
  const badges = { "": facts.attention.value.size, dead };
  useEffect(showPlace, [parts[0], badges[""] > 0, dead > 0]);
  return html`<header class="top">
    <a class="name" href=${to([])}><img src="icon.svg" alt="" width="22" height="22" /> Solar Wind</a>
    <nav aria-label="Pages">${PLACES.map(([letter, place, name]) => {
      const here = (parts[0] ?? "") === (place[0] ?? "");
      const badge = badges[place[0] ?? ""];
      return html`<a href=${to(place)} aria-current=${here ? "page" : undefined} title=${`g ${letter}`}>${name}${badge ? html` <span class="count">${badge > 999 ? "999+" : badge}</span>` : ""}</a>`;
    })}</nav>
    <div class="tools">
      <${Search} />
      <button type="button" class="small" onClick=${nextTheme} title=${`Theme: ${theme.value === "system" ? "as your system has it" : theme.value}. Key: c`}><span aria-hidden="true">${"◐\u00a0"}</span><span class="unseen">Theme: </span>${{ system: "Auto", light: "Light", dark: "Dark" }[theme.value]}</button>
      <button type="button" class="small" onClick=${() => (helps.value = true)} title="Key: ?" aria-label="Keys">?</button>
      ${!own.admin && !own.fire.length && !own.listen.length && html`<span class="state quiet" title=${`The token ${own.name} may watch, and change nothing`}>read only</span>`}
      ${token() && html`<button type="button" class="small" onClick=${() => signOut()} title=${`Signed in as ${own.name}`}>Sign out</button>`}
    </div>
  </header>`;
}

// On a phone the pages are a line that is scrolled.
function showPlace() {
  const here = document.querySelector("header.top [aria-current]");
  if (!here) return;
  const [own, all] = [here, here.parentNode].map((each) => each.getBoundingClientRect());
  here.parentNode.scrollLeft += own.left + own.width / 2 - all.left - all.width / 2;
}

function Live() {
  const { name, why } = state.value;
  if (name === "live" || (name === "connecting" && !known.value)) return null;
  const text = { connecting: "Connecting …", paused: `Paused ${why}. What is shown stands still.`, away: `Not live: ${why}. It is tried again; what is shown may be old.` }[name];
  return html`<div class=${`live ${name}`} role="status">${text}
    ${pausedByKey.value && html`<button type="button" class="small" onClick=${() => (pausedByKey.value = false)}>Go on</button>`}</div>`;
}

const Help = () => html`<${Dialog} title="Keys" close=${() => (helps.value = false)}>
  <dl class="keys">
    ${KEYS.map(([key, text]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${text}</dd></div>`)}
    ${PLACES.map(([key, , text]) => html`<div><dt><kbd>g</kbd> <kbd>${key}</kbd></dt><dd>${text}</dd></div>`)}
  </dl>
</${Dialog}>`;
