// Checks AsyncAPI documents: `node asyncapi.mjs PARSER FILE...`, with AsyncAPI's own parser as one file. It prints a line
// for each diagnostic, also of what is only advice.
import { readFileSync } from "node:fs";
import vm from "node:vm";

const [parser, ...files] = process.argv.slice(2);
globalThis.self = globalThis; // as in a browser, for which that file is made
vm.runInThisContext(readFileSync(parser, "utf8"), { filename: parser });
const Parser = globalThis.AsyncAPIParser;

let faults = 0;
for (const file of files) {
  const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
  for (const { code, path, message } of diagnostics) console.log(`${file}: ${path.join(".")}: ${code}: ${message}`);
  faults += diagnostics.length + (document ? 0 : 1);
}
process.exitCode = faults ? 1 : 0;
