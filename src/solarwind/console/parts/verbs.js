// Every verb of the page, once: what it is called, what it says before it is done, what it asks for, what it touches.
import { get, purposePath, topicPath } from "../core/api.js";
import { facts } from "../core/facts.js";
import { count, plural } from "../core/format.js";
import { perform } from "../core/verbs.js";
import { matchingLetters, toLetters } from "./letters.js";

const events = (number) => plural(number, "event");
const pend = (number) => `${events(number)} ${number === 1 ? "pends" : "pend"}`;
const letters = (number) => plural(number, "dead letter");
const given = (text) => (text === "" ? undefined : text);

export const VERBS = {
  pause: {
    label: "Pause",
    says: ({ purpose }) => `Nothing more of “${purpose}” is handed out until it is resumed: its events pend.`,
    touches: ({ topic, purpose }) => left(topic, purpose, (stands) => `${pend(stands.pending)} now; ${count(stands.in_flight)} in hand ${stands.in_flight === 1 ? "is" : "are"} finished.`),
    done: (_, { purpose }) => `“${purpose}” is paused.`,
  },
  resume: {
    label: "Resume",
    says: ({ purpose }) => `“${purpose}” is handed out again.`,
    touches: ({ topic, purpose }) => left(topic, purpose, (stands) => `${pend(stands.pending)}.`),
    done: (_, { purpose }) => `“${purpose}” goes on.`,
  },
  replay: {
    label: "Replay",
    says: ({ purpose }) => `A part of the topic's history pends again for “${purpose}”, and is handled once more.`,
    fields: [
      { name: "since", label: "From", value: "1h", required: true, help: "beginning, a time such as 2026-01-31T12:00:00Z, or so long ago: 30s, 15m, 2h, 7d" },
      { name: "until", label: "Up to", value: "now", required: true },
      { name: "caused_by", label: "Only what this caused", placeholder: "TOPIC/PURPOSE@VERSION" },
    ],
    arguments: ({ topic, purpose, since, until, caused_by }) => ({ topic, purpose, since, until, caused_by: given(caused_by) }),
    touches: async (wanted) => {
      const { replayed } = await perform("replay", { ...wanted, dry_run: true });
      return { text: `${events(replayed)} will pend again.`, none: replayed === 0 };
    },
    done: ({ replayed }) => `${pend(replayed)} again.`,
  },
  retry: {
    label: "Retry now",
    says: ({ purpose }) => `What waits for a retry for “${purpose}” is handed out now. The attempts that it had count.`,
    touches: (wanted) => retried(wanted, "handed out now"),
    done: ({ retried: number }) => `${events(number)} ${number === 1 ? "is" : "are"} handed out.`,
  },
  resend: {
    operation: "retry",
    label: "Resend",
    title: ({ name }) => `Send again what ${name} missed`,
    says: ({ purpose }) => `What waits for a retry for “${purpose}” is sent now, and its dead letters are sent again, as if never tried. Another instance of the purpose may get some of it; a target that asked for a pause is left alone until that is over.`,
    arguments: ({ topic, purpose }) => ({ topic, purpose, dead: true }),
    touches: (wanted) => retried(wanted, "sent again"),
    done: ({ retried: number }) => `${events(number)} ${number === 1 ? "is" : "are"} sent again.`,
  },
  retire: {
    label: "Retire",
    danger: true,
    says: ({ purpose }) => `“${purpose}” is forgotten, with what is left of it. The topic's history stays.`,
    arguments: (wanted) => ({ ...wanted, force: true }),
    touches: ({ topic, purpose }) =>
      left(topic, purpose, (stands) => `It gives up ${plural(stands.pending + stands.in_flight, "pending event")}, ${letters(stands.dead)} and ${plural(stands.instances, "instance")}.`),
    done: (_, { purpose }) => `“${purpose}” is retired.`,
  },
  redrive: {
    label: "Redrive",
    says: ({ purpose }) => `Dead letters of “${purpose}” are handed out again, as if never tried.`,
    fields: [
      { name: "version", label: "To this version alone", type: "number", min: 1, placeholder: "any" },
      { name: "rate", label: "At most so many a second", type: "number", min: 1, placeholder: "at once" },
    ],
    arguments: ({ version, ...which }) => ({ ...chosen(which), version: version ? Number(version) : undefined }),
    touches: touchedLetters,
    run: (wanted, { rate }, note) => toLetters("redrive", wanted, Number(rate), note),
    done: ({ redriven }) => `${letters(redriven)} ${redriven === 1 ? "is" : "are"} handed out again.`,
  },
  discard: {
    label: "Discard",
    danger: true,
    says: ({ purpose }) => `Dead letters of “${purpose}” are forgotten for good: this cannot be undone. Their events stay in the topic's history.`,
    arguments: chosen,
    touches: touchedLetters,
    run: (wanted, _, note) => toLetters("discard", wanted, 0, note),
    done: ({ discarded }) => `${letters(discarded)} discarded.`,
  },
  keep: {
    label: "Keep",
    title: ({ topic }) => `How much ${topic} keeps`,
    says: ({ topic }) => `How much of its history ${topic} keeps. What is older is trimmed, once no purpose needs it.`,
    fields: [
      { name: "keep", label: "Seconds", type: "number", min: 0, step: "any", required: true, always: true, value: ({ kept_for }) => kept_for },
      { name: "keep_bytes", label: "Bytes at most", type: "number", min: 0, placeholder: "no bound", always: true },
    ],
    arguments: ({ topic, keep, keep_bytes }) => ({ topic, keep: Number(keep), keep_bytes: keep_bytes ? Number(keep_bytes) : null }),
    touches: async (wanted) => {
      const [{ kept }, then] = await Promise.all([get(topicPath(wanted.topic)), perform("keep", { ...wanted, dry_run: true })]);
      const trimmed = Math.max(0, kept - then.kept);
      return { text: trimmed ? `About ${events(trimmed)} of ${count(kept)} will be trimmed, for good.` : `None of the ${events(kept)} that are kept will be trimmed.`, none: false };
    },
    done: (_, { topic }) => `${topic} keeps that much.`,
  },
  fire: {
    label: "Fire an event",
    title: ({ topic }) => `Fire an event on ${topic}`,
    says: () => "Every purpose of the topic gets it, as any other event.",
    fields: [
      { name: "payload", label: "Payload, as JSON", type: "text area", required: true, always: true, value: "{}" },
      { name: "key", label: "Key", always: true },
      { name: "after", label: "So long from now", placeholder: "90s, 5m, 12h" },
    ],
    arguments: ({ topic, payload, key, after }) => ({ topic, payload, key: given(key), after: given(after) }),
    touches: async ({ payload }) => {
      try {
        JSON.parse(payload);
        return { text: "It is valid JSON.", none: false };
      } catch (error) {
        return { text: `expected JSON: ${error.message}`, none: true };
      }
    },
    done: ({ ids }) => `Event ${ids[0]} is accepted.`,
  },
  share: {
    label: "Share",
    title: ({ version }) => `Share of version ${version}`,
    says: ({ version }) => `Of the events that are fired from now on, version ${version} gets this share; the current version has the rest. With 0 it is held.`,
    fields: [{ name: "per_cent", label: "Per cent", type: "number", min: 0, max: 100, step: "any", required: true, value: 10 }],
    arguments: ({ topic, purpose, version, per_cent }) => ({ topic, purpose, version, share: Number(per_cent) / 100 }),
    done: (_, { version, per_cent }) => `Version ${version} has ${per_cent} % of the events.`,
  },
  shadow: {
    label: "Shadow",
    says: ({ version }) => `Version ${version} gets a copy of what the current version gets. What it does with it is only compared.`,
    done: (_, { version }) => `Version ${version} is a shadow.`,
  },
  promote: {
    label: "Promote",
    says: ({ version, current }) => `Version ${version} becomes the current one, and gets all events that are in no other's share. Version ${current} gets nothing more, and finishes what it has in hand.`,
    arguments: ({ topic, purpose, version }) => ({ topic, purpose, version }),
    done: (_, { version }) => `Version ${version} is current.`,
  },
  rollback: {
    label: "Roll back",
    danger: true,
    says: ({ current }) => `The version that was current before becomes it again, and gets what pends. Version ${current} gets nothing more.`,
    arguments: ({ topic, purpose }) => ({ topic, purpose }),
    done: (answer) => `Version ${answer.current} is current again.`,
  },
  cancel: {
    label: "Cancel",
    danger: true,
    says: ({ id }) => `Event ${id} does not enter its topic. It is taken back for good.`,
    touches: async () => ({ text: "1 event is taken back.", none: false }),
    done: ({ cancelled }, { id }) => (cancelled ? `${id} is taken back.` : `${id} was due already: nothing is taken back.`),
  },
  pause_schedule: {
    label: "Pause",
    says: ({ name }) => `Nothing is fired at the ticks of “${name}” until it is resumed.`,
    done: (_, { name }) => `Schedule ${name} is paused.`,
  },
  resume_schedule: {
    label: "Resume",
    says: ({ name }) => `“${name}” goes on with its next tick.`,
    done: (_, { name }) => `Schedule ${name} goes on.`,
  },
  run_schedule: {
    label: "Run now",
    says: ({ name }) => `The event of “${name}” is fired once, besides its ticks.`,
    done: ({ id }) => `Event ${id} is fired.`,
  },
  remove_schedule: {
    label: "Remove",
    danger: true,
    says: ({ name }) => `“${name}” is forgotten. A process that declares it makes it again when it starts.`,
    done: (_, { name }) => `Schedule ${name} is removed.`,
  },
  put_webhook: {
    label: "Register",
    title: () => "Register a webhook",
    says: () => "The server POSTs the events of the purpose to this URL, signed with a secret that it makes, and that is shown once.",
    fields: [
      { name: "topic", label: "Topic", required: true },
      { name: "purpose", label: "Purpose", required: true, placeholder: "Tell the shop" },
      { name: "name", label: "Name of the webhook", required: true, placeholder: "shop" },
      { name: "url", label: "URL", type: "url", required: true, placeholder: "https://shop.example/hook" },
      { name: "exchange", label: "Exchange", value: "direct", options: [["direct", "direct: each event once"], ["keyed", "keyed: in order per key"], ["fanout", "fanout: what does not arrive is dropped"]] },
      { name: "handshake", label: "Ask the target first whether it wants events", type: "checkbox", value: true },
    ],
    touches: async ({ topic, purpose, name }) => ({
      text: facts.webhooks.value.has(`${topic}/${purpose}/${name}`) ? "There is one of that name: it is changed." : "It is a new webhook.",
      none: false,
    }),
    done: ({ name }) => `Webhook ${name} is registered.`,
  },
  pause_webhook: {
    label: "Pause",
    says: ({ name, purpose }) => `The webhook “${name}” sends nothing until it is resumed. What no other instance of “${purpose}” gets pends; of a fan-out it is dropped.`,
    touches: ({ topic, purpose }) => left(topic, purpose, (stands) => `${pend(stands.pending)} now; ${count(stands.in_flight)} in hand ${stands.in_flight === 1 ? "is" : "are"} finished.`),
    done: (_, { name }) => `Webhook ${name} is paused.`,
  },
  resume_webhook: {
    label: "Resume",
    says: ({ name }) => `The webhook “${name}” goes on.`,
    done: (_, { name }) => `Webhook ${name} goes on.`,
  },
  delete_webhook: {
    label: "Remove",
    danger: true,
    says: ({ name, purpose }) => `The webhook “${name}” delivers nothing more. What pends for “${purpose}” waits for another instance.`,
    done: (_, { name }) => `Webhook ${name} is removed.`,
  },
};

async function retried(wanted, what) {
  const { retried: number } = await perform("retry", { ...wanted, dry_run: true });
  return { text: `${events(number)} will be ${what}.`, none: number === 0 };
}

// How a purpose stands, in a sentence: as the server says now, since what is shown is up to a second old.
async function left(topic, purpose, text) {
  return { text: text(await get(purposePath(topic, purpose))), none: false };
}

// Letters by their ids, of one kind of error, or all of the purpose.
function chosen({ topic, purpose, ids, matching }) {
  return { topic, purpose, ...(ids ? { ids } : matching ? { matching } : { all: true }) };
}

// An empty choice is refused: nothing stands for all of them.
async function touchedLetters(wanted) {
  if (wanted.all) {
    const { dead } = await get(purposePath(wanted.topic, wanted.purpose));
    return { text: `All ${letters(dead)} of the purpose.`, none: dead === 0 };
  }
  const number = wanted.matching ? (await matchingLetters(wanted)).length : wanted.ids.length;
  return { text: `${letters(number)}.`, none: number === 0 };
}
