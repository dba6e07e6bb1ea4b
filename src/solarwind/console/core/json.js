// JSON whose numbers keep all of their digits: one that JavaScript's own numbers cannot hold is an `Exact`.

export class Exact {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
}

export function parseExactly(text) {
  return JSON.parse(text, (_, value, { source } = {}) =>
    typeof value === "number" && source !== undefined && String(value) !== source ? new Exact(source) : value,
  );
}

// Return a value as JSON again, as long as it was: `Exact` numbers with their digits.
export function writeExactly(value, indent = 0) {
  return JSON.stringify(value, (_, each) => (each instanceof Exact ? JSON.rawJSON(each.text) : each), indent);
}
