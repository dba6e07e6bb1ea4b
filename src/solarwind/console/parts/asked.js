// A question to the server while a page is shown, asked again when what it depends on has
// changed, and when a server that was away is back.
import { returns } from "../core/facts.js";
import { useEffect, useSignal } from "../core/ui.js";

// Return a signal of {answer, error, asking}. The last answer stays until the next one is here.
export function useAnswer(question, depends) {
  const found = useSignal({ answer: undefined, error: null, asking: true });
  useEffect(() => {
    let over = false;
    found.value = { ...found.value, asking: true };
    question().then(
      (answer) => over || (found.value = { answer, error: null, asking: false }),
      (error) => over || (found.value = { ...found.value, error, asking: false }),
    );
    return () => (over = true);
  }, [...depends, returns.value]);
  return found.value;
}
