// The keyboard: `g` and a letter go to a page, others do one thing. The help shows this table.
import { signal } from "./ui.js";
import { pausedByKey } from "./facts.js";
import { go, to } from "./router.js";
import { nextTheme } from "./theme.js";

export const helps = signal(false); // whether the list of keys is shown
let goes = false; // after g

export const PLACES = [
  ["o", [], "Overview"],
  ["m", ["map"], "Map"],
  ["t", ["topics"], "Topics"],
  ["p", ["purposes"], "Purposes"],
  ["d", ["dead"], "Dead letters"],
  ["i", ["instances"], "Instances"],
  ["l", ["later"], "Schedules"],
  ["r", ["rollouts"], "Rollouts"],
  ["w", ["webhooks"], "Webhooks"],
  ["s", ["system"], "System"],
];
export const KEYS = [
  ["/", "Search", () => document.querySelector("#search")?.focus()],
  ["p", "Pause what is live, or go on", () => (pausedByKey.value = !pausedByKey.value)],
  ["c", "Light, dark, or as the system has it", nextTheme],
  ["?", "This list", () => (helps.value = !helps.value)],
];

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
  const place = goes && PLACES.find(([letter]) => letter === event.key);
  const key = !goes && KEYS.find(([letter]) => letter === event.key);
  goes = !goes && event.key === "g";
  if (place) go(to(place[1]));
  else if (key) key[2]();
  else return;
  event.preventDefault();
});
