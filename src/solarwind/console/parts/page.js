// The frame of a page: its title, what it shows at the side, and what it says where there is nothing.
import { html, plain, useEffect } from "../core/ui.js";
import { here } from "../core/verbs.js";
import { Copied } from "./copied.js";

export function Page({ title, trail = [], actions, children }) {
  useEffect(() => {
    document.title = plain(`${title} · Solar Wind`);
  }, [title]);
  return html`<header class="page">
      <div>
        ${trail.length > 0 && html`<nav aria-label="Where this is" class="trail">${trail.map(([text, href]) => html`<a href=${href}>${text}</a>`)}</nav>`}
        <h1 dir="auto">${title}</h1>
      </div>
      <div class="actions">${actions}</div>
    </header>
    ${children}`;
}

export function Section({ title, aside, children }) {
  return html`<section>
    <header class="section"><h2>${title}</h2>${aside && html`<div class="aside">${aside}</div>`}</header>
    ${children}
  </section>`;
}

// What is said where there is nothing: why, and the command of `solarwind` or the request that makes something.
export function Empty({ children, command, request }) {
  const text = command ? here(command) : request;
  return html`<div class="empty"><p>${children}</p>${text && html`<${Copied} text=${text} />`}</div>`;
}

export function Facts({ of }) {
  return html`<dl class="facts">
    ${of.filter(Boolean).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

export const Failure = ({ error }) => html`<p class="failure" role="alert">${error.message}</p>`;
export const Loading = () => html`<p class="quiet" role="status">Loading …</p>`;
