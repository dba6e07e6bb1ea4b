// The time that it is now, for all relative times: once a second, while the page is seen; and a rest of some time.
import { signal } from "./ui.js";

export const now = signal(Date.now());
setInterval(() => document.hidden || (now.value = Date.now()), 1_000);

export const rest = (ms) =>
  new Promise((done) => {
    setTimeout(done, ms);
  });
