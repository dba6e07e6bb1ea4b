// Who fires what: from the newest events of each topic, whose causes say which purpose or producer fired them.
import { get, topicPath } from "../core/api.js";

const SAMPLE = 50; // events of a topic
const AT_A_TIME = 6; // requests

// Return {from, to, part} for `topics`: `from` is {purpose, topic} or {producer}, `part` its share of what is fired.
export async function flowsInto(topics, purposes) {
  const found = [];
  const left = [...topics];
  const topicOf = topicsOfPurposes(purposes);
  const work = async () => {
    for (let topic = left.pop(); topic; topic = left.pop()) found.push(...(await flowsOf(topic, topicOf).catch(() => [])));
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, work));
  return found;
}

async function flowsOf({ topic, fired }, topicOf) {
  const query = fired > SAMPLE ? { after: fired - SAMPLE - 1, limit: SAMPLE } : { limit: SAMPLE };
  const { events } = await get(`${topicPath(topic)}/events`, query).catch(() => get(`${topicPath(topic)}/events`, { since: "1h", limit: SAMPLE }));
  const counts = new Map();
  for (const event of events) {
    const from = event.causationpurpose ? { purpose: event.causationpurpose, topic: await topicOf(event) } : { producer: producerOf(event) };
    const key = JSON.stringify(from);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [...counts].map(([key, count]) => ({ from: JSON.parse(key), to: topic, part: count / events.length }));
}

// A schedule, a user, or the program: its process has another number each time.
function producerOf({ causekind, causename, source }) {
  return causekind ? `${causekind} ${causename}` : source.replace(/^\/\//, "").replace(/:\d+$/, "");
}

// Purposes of several topics may have the same name: then the event that was the cause says which it was.
function topicsOfPurposes(purposes) {
  const by = new Map();
  for (const { topic, purpose } of purposes) by.set(purpose, [...(by.get(purpose) ?? []), topic]);
  const asked = new Map();
  return async ({ causationpurpose, causationid }) => {
    const topics = by.get(causationpurpose) ?? [];
    if (topics.length === 1) return topics[0];
    if (!asked.has(causationid)) {
      const answer = await get(`/v1/trace/${encodeURIComponent(causationid)}`, { limit: 1 }).catch(() => null);
      asked.set(causationid, answer?.events[0]?.type ?? "");
    }
    return asked.get(causationid);
  };
}
