// What can be asked of the dispatcher, from the server's own list: the request, and the commands that do the same.
import { ask, get, withQuery } from "./api.js";
import { writeExactly } from "./json.js";
import { ROOT, token } from "./session.js";

// Arguments of a command that have no option's name, by their kind.
const BARE = new Set(["topic", "topic?", "purpose", "id", "schedule", "hook"]);
let operations = {};

// What is no operation, and so not in the server's list.
const OTHERS = {
  fire: { method: "POST", path: "/v1/topics/{topic}/events", right: "fire", kinds: {}, words: null },
  put_webhook: { method: "PUT", path: "/v1/topics/{topic}/purposes/{purpose}/webhooks/{name}", right: "listen", kinds: {} },
  delete_webhook: { method: "DELETE", path: "/v1/topics/{topic}/purposes/{purpose}/webhooks/{name}", right: "listen", kinds: {} },
};

export async function learnOperations() {
  operations = { ...(await get("/console/operations.json")), ...OTHERS };
}

export const operation = (name) => operations[name];

// Return the request that an operation makes: path, and the arguments that the path does not name.
function request(name, given) {
  const { method, path } = operations[name];
  const rest = { ...given };
  const full = path.replace(/\{(\w+)\}/g, (_, part) => {
    delete rest[part];
    return encodeURIComponent(given[part]);
  });
  const left = Object.entries(rest).filter(([, value]) => value !== undefined);
  const inBody = (method === "POST" || method === "PUT") && left.length > 0;
  return { method, path: inBody ? full : withQuery(full, Object.fromEntries(left)), body: inBody ? Object.fromEntries(left) : undefined };
}

export function perform(name, given) {
  if (name === "fire") return fire(given);
  const { method, path, body } = request(name, given);
  return ask(method, path, body);
}

// An event's payload is the whole body, as it was written.
function fire({ topic, payload, key, after }) {
  return ask("POST", withQuery(request("fire", { topic }).path, { key, after }), payload);
}

// The commands ---------------------------------------------------------------------------------------------------

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`;
}

const optionOf = (name, value) => {
  const option = `--${name.replaceAll("_", "-")}`;
  if (value === true) return [option];
  if (value === false || value === undefined) return [];
  return [option, quoted(value === null ? (name === "keep_bytes" ? "none" : "default") : value)];
};

// Return a command with the URL of this server: without it, it would go to wherever the user's environment says.
export const here = (command) => `${command} --url ${quoted(ROOT.replace(/^http/, "ws").replace(/\/$/, ""))}`;

// Return the command line that does it; null where there is none.
export function commandOf(name, given) {
  const words = [];
  if (name === "fire") {
    words.push("fire", quoted(given.topic), quoted(given.payload));
    for (const each of ["key", "after"]) if (given[each]) words.push(...optionOf(each, given[each]));
  } else {
    const { words: own, kinds } = operations[name];
    if (!own) return null;
    words.push(own);
    const bare = Object.entries(given).filter(([each, value]) => BARE.has(kinds[each]) && value !== undefined);
    const order = Object.keys(kinds);
    for (const [, value] of bare.sort(([a], [b]) => order.indexOf(a) - order.indexOf(b))) words.push(quoted(value));
    if (given.ids) words.push(...given.ids.map(quoted));
    for (const [each, value] of Object.entries(given))
      if (!BARE.has(kinds[each]) && each !== "ids") words.push(...optionOf(each, value));
  }
  return here(`solarwind ${words.join(" ")}`);
}

export function curlOf(name, given) {
  const bearer = token() ? ' -H "Authorization: Bearer $SOLARWIND_TOKEN"' : "";
  const { method, path, body } =
    name === "fire"
      ? { ...request("fire", { topic: given.topic }), body: given.payload }
      : request(name, given);
  const full = name === "fire" ? withQuery(path, { key: given.key, after: given.after }) : path;
  const data = body === undefined ? "" : ` --json ${quoted(typeof body === "string" ? body : writeExactly(body))}`;
  const how = method === "GET" || (method === "POST" && data) ? "" : ` -X ${method}`;
  return `curl${how}${bearer} ${quoted(ROOT + full.slice(1))}${data}`;
}
