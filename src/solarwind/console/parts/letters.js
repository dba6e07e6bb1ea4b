// Dead letters: reading them page by page, and in groups of the same purpose and the same kind of error.
import { get, purposePath } from "../core/api.js";
import { rest as pause } from "../core/clock.js";
import { perform } from "../core/verbs.js";

const PAGE = 1_000;
const SECOND_MS = 1_000;

// What is common to errors that differ in numbers, ids and quoted values alone.
export const kindOf = (error) =>
  (error || "no error is stated").replace(/(["'`])(?:(?!\1).){0,200}\1/g, "…").replace(/\b[0-9a-f]{8}-[0-9a-f-]{27}\b|0x[0-9a-f]+|\d+(\.\d+)?/gi, "#").slice(0, 300);

// Yield pages of the letters of a purpose.
export async function* letterPages(topic, purpose) {
  let after;
  do {
    const page = await get(`${purposePath(topic, purpose)}/dead`, { limit: PAGE, after });
    yield page.dead;
    after = page.next;
  } while (after);
}

export function grouped(topic, purpose, letters, groups = new Map()) {
  for (const letter of letters) {
    const kind = kindOf(letter.error);
    const group = groups.get(kind) ?? { topic, purpose, kind, count: 0, first: letter.time, last: letter.time, sample: letter, error: letter.error || kind };
    group.count += 1;
    if (letter.error !== group.sample.error) group.error = kind; // it is all that they have in common
    if (letter.time < group.first) group.first = letter.time;
    if (letter.time >= group.last) [group.last, group.sample] = [letter.time, letter];
    groups.set(kind, group);
  }
  return groups;
}

// Return the ids of all letters of a purpose with that kind of error.
export async function matchingLetters({ topic, purpose, matching }) {
  const ids = [];
  for await (const letters of letterPages(topic, purpose))
    for (const letter of letters) if (kindOf(letter.error) === matching) ids.push(letter.event.id);
  return ids;
}

// Do a verb to letters: all of a purpose in one request, or those chosen, in parts; `rate` of them a second if it is
// stated. `note` is told how far it is.
export async function toLetters(verb, wanted, rate, note) {
  if (wanted.all && !rate) return perform(verb, wanted);
  const { matching, all, ids: chosen, ...rest } = wanted;
  const ids = chosen ?? (matching ? await matchingLetters(wanted) : await allLetters(wanted));
  const key = verb === "redrive" ? "redriven" : "discarded";
  const size = rate || PAGE;
  let done = 0;
  for (let at = 0; at < ids.length; at += size) {
    if (rate && at) await pause(SECOND_MS);
    done += (await perform(verb, { ...rest, ids: ids.slice(at, at + size) }))[key];
    note(`${done} of ${ids.length} …`);
  }
  return { [key]: done };
}

async function allLetters({ topic, purpose }) {
  const ids = [];
  for await (const letters of letterPages(topic, purpose)) ids.push(...letters.map((each) => each.event.id));
  return ids;
}
