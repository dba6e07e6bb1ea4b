// What packages of npm make of messages: `node judge.mjs FOLDER`, with the packages in FOLDER. A question is a line of
// JSON, `{"do": …}`, and so is the answer, `{"found": …}` or `{"error": "…"}`. Bodies are in base64.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/`);
const { CloudEvent, HTTP } = require("cloudevents");
const { Webhook } = require("standardwebhooks");

const TEXT = /^(text\/|application\/([a-z0-9.-]+\+)?json)/;

const QUESTIONS = {
  // Whether a message is genuine: gives its body, which has to be JSON.
  verify: ({ secret, headers, body }) => new Webhook(secret).verify(Buffer.from(body, "base64"), headers),

  // The events of a message, as they are in JSON. A framework for the web gives text as text, and all else as bytes.
  read: ({ headers, body }) => {
    const bytes = Buffer.from(body, "base64");
    return [HTTP.toEvent({ headers, body: TEXT.test(headers["content-type"]) ? bytes.toString() : bytes })].flat();
  },

  // Messages with these events. The package has no batches on the way out: they are an array.
  write: ({ mode, events }) => {
    const made = events.map((each) => new CloudEvent(each.data_base64 ? { ...each, data: Buffer.from(each.data_base64, "base64") } : each));
    const messages = mode === "batched" ? [{ headers: { "content-type": "application/cloudevents-batch+json" }, body: JSON.stringify(made) }] : made.map(HTTP[mode]);
    return messages.map(({ headers, body }) => ({ headers, body: Buffer.from(body ?? "").toString("base64") }));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer;
  try {
    answer = { found: QUESTIONS[asked.do](asked) };
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  console.log(JSON.stringify(answer));
}
