// What is wrong with an answer, in a sentence: the server's own, or what stands for it where something in between, such as a
// proxy, has answered.

// Return {status, code, detail} of an answer that is a refusal.
export async function problemOf(answer) {
  const found = await answer.json().catch(() => null);
  if (typeof found?.detail === "string") return found;
  return { status: answer.status, code: "error", detail: `the server answered ${answer.status}` };
}
