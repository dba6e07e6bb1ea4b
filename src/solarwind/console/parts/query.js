// What is typed into the search: words, and qualifiers such as `purpose:Encode` or `key:"a b"`.
const TERM = /(?:([a-z]+(?:\.[\w.]+)?):)?(?:"([^"]*)"|(\S+))/gi;
const KNOWN = /^(purpose|topic|key|error|id|payload(\.[\w.]+)?)$/i;

// Return {words, purpose, topic, key, error, id, payload: [[path, value]]}; what is not stated is undefined.
export function parseQuery(text) {
  const found = { words: [], payload: [] };
  for (const [whole, name, quoted, plain] of text.matchAll(TERM)) {
    const value = quoted ?? plain;
    if (!name || !KNOWN.test(name)) found.words.push(name ? whole : value);
    else if (name.startsWith("payload")) found.payload.push([name.split(".").slice(1), value]);
    else found[name.toLowerCase()] = value;
  }
  return found;
}

// Return whether a payload has this value at this path.
export function has(data, [path, value]) {
  let at = data;
  for (const name of path) {
    if (at === null || typeof at !== "object") return false;
    at = at[name];
  }
  if (at === undefined) return false;
  return (at !== null && typeof at === "object" && at.text === undefined ? JSON.stringify(at).includes(value) : String(at) === value);
}
