// How rates went while this page was open, for the small curves in lists: a number every few seconds.
import { effect } from "./ui.js";
import { facts, state } from "./facts.js";
import { now } from "./clock.js";

const STEP_S = 3;
const POINTS = 40;
const RATES = { topics: (fact) => fact.fired_per_s, purposes: (fact) => fact.rates?.settled };
const courses = { topics: new Map(), purposes: new Map() };
let last = 0;

effect(() => {
  const step = Math.floor(now.value / 1000 / STEP_S);
  if (step === last || state.peek().name !== "live") return;
  last = step;
  for (const [part, rateOf] of Object.entries(RATES)) {
    const known = facts[part].peek();
    for (const name of courses[part].keys()) if (!known.has(name)) courses[part].delete(name);
    for (const [name, fact] of known) {
      const course = courses[part].get(name) ?? [];
      course.push(rateOf(fact) ?? 0);
      if (course.length > POINTS) course.shift();
      courses[part].set(name, course);
    }
  }
});

export const courseOf = (part, name) => courses[part].get(name) ?? [];
