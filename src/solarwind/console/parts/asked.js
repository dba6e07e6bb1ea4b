// A question to the server while a page is shown, asked again when what it depends on has
// changed, when a server that was away is back, and when a verb was done or refused: then what is shown may be old.
import { returns } from "../core/facts.js";
import { signal, useEffect, useSignal } from "../core/ui.js";

const acts = signal(0); // verbs that were done or refused

export const askAgain = () => (acts.value += 1);
export const turn = () => returns.value + acts.value;

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
  }, [...depends, turn()]);
  return found.value;
}
