// Parts of an address, which anybody may have written.

// Return a part without its percent-encoding, or as it stands where that is not valid.
export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
