// Server-sent events by `fetch`, which can send a token: the messages of one connection.
import { problemOf } from "./problem.js";
import { authorization, ROOT } from "./session.js";
import { Slices } from "./slices.js";

const SILENT_MS = 60_000; // the server sends at least a comment every 15 s

// Call `message({event, data, id})` for each message until the stream ends. `id` is undefined where none was said.
export async function readStream(path, lastId, abort, message) {
  const own = new AbortController();
  const end = () => own.abort();
  abort.addEventListener("abort", end);
  let silence = setTimeout(end, SILENT_MS);
  try {
    const headers = { ...authorization(), ...(lastId ? { "last-event-id": lastId } : {}) };
    const answer = await fetch(ROOT + path.slice(1), { headers, signal: own.signal });
    if (!answer.ok) throw Object.assign(new Error((await problemOf(answer)).detail), { status: answer.status });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const slices = new Slices();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(end, SILENT_MS);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        message(read(block));
        await slices.next();
        if (own.signal.aborted) return;
      }
    }
  } finally {
    clearTimeout(silence);
    abort.removeEventListener("abort", end);
    own.abort();
  }
}

function read(block) {
  const found = { event: "message", data: "", id: undefined };
  for (const line of block.split("\n")) {
    const [name, ...value] = line.split(": ");
    if (name in found) found[name] = value.join(": ");
  }
  return found;
}
