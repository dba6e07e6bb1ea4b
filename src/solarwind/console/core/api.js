// Requests to the server. A refusal is an error whose message is the server's sentence.
import { parseExactly, writeExactly } from "./json.js";
import { problemOf } from "./problem.js";
import { authorization, ROOT, signOut } from "./session.js";

class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.status = problem.status;
    this.code = problem.code;
  }
}

// Return the answer to a request, whose numbers keep their digits; null where there is no body. Raise `Refused`.
export async function ask(method, path, body, type = "application/json") {
  const headers = { ...authorization() };
  if (body !== undefined) headers["content-type"] = type;
  let answer;
  try {
    answer = await fetch(ROOT + path.slice(1), {
      method,
      headers,
      body: body === undefined || typeof body === "string" ? body : writeExactly(body),
    });
  } catch {
    const then = method === "GET" ? "it is asked again when it is back" : "look whether this was done when it is back";
    throw new Refused({ status: 0, code: "away", detail: `the server does not answer: ${then}` });
  }
  if (answer.ok) {
    const text = await answer.text();
    return text ? parseExactly(text) : null;
  }
  const problem = await problemOf(answer);
  if (answer.status === 401) signOut(problem.detail);
  throw new Refused(problem);
}

export const get = (path, query = {}) => ask("GET", withQuery(path, query));

export function withQuery(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

export const topicPath = (topic) => `/v1/topics/${encodeURIComponent(topic)}`;
export const webhookPath = (topic, purpose, name) => `${purposePath(topic, purpose)}/webhooks/${encodeURIComponent(name)}`;
export const purposePath = (topic, purpose) => `${topicPath(topic)}/purposes/${encodeURIComponent(purpose)}`;
