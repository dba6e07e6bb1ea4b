// The console: a page on the facts of a Solar Wind server. It begins here.
import { html, render } from "./core/ui.js";
import { rest } from "./core/clock.js";
import { begin } from "./core/facts.js";
import { askRights } from "./core/session.js";
import { learnOperations } from "./core/verbs.js";
import "./core/theme.js";
import { App } from "./app.js";

const AGAIN_MS = 1_000;

const root = document.querySelector("#root");

// A server that is not up yet is tried again: the page says so meanwhile.
async function start() {
  for (let asked = 1; ; asked += 1) {
    try {
      await Promise.all([learnOperations(), askRights()]);
      break;
    } catch (error) {
      if (asked === 1) root.replaceChildren(); // what was painted before anything was known
      render(html`<p class="start" role="status">The server cannot be asked: ${error.message}. It is tried again.</p>`, root);
      await rest(AGAIN_MS);
    }
  }
  begin();
  render(null, root);
  root.replaceChildren();
  render(html`<${App} />`, root);
}

start();
