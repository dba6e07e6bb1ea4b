// Where the server is, and the token: from the fragment of the address, or asked for once. It is kept for this tab.
import { decoded } from "./encoded.js";
import { problemOf } from "./problem.js";
import { signal } from "./ui.js";

export const ROOT = new URL("..", document.baseURI).href; // the path that the server is mounted at, with a slash
const KEY = `solarwind token ${ROOT}`;

// `"asking"` until the server has said what the token may do, `null` where it wants another one.
export const rights = signal("asking");
export const refusal = signal(""); // why a token was refused

function fromFragment() {
  const found = /^#token=([^&]*)&?(.*)$/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, decoded(found[1]));
  history.replaceState(null, "", `${location.pathname}#${found[2] || "/"}`); // it stays in no history
}

fromFragment();

export const token = () => sessionStorage.getItem(KEY);

export function authorization() {
  const own = token();
  return own ? { authorization: `Bearer ${own}` } : {};
}

// Ask what the token may do. A server that is away is asked again by whoever calls.
export async function askRights() {
  const answer = await fetch(`${ROOT}v1/token`, { headers: authorization() });
  if (answer.ok) {
    rights.value = await answer.json();
    refusal.value = "";
  } else if (answer.status === 401) {
    signOut(token() ? (await problemOf(answer)).detail : "");
  } else {
    throw new Error((await problemOf(answer)).detail);
  }
}

export async function signIn(text) {
  sessionStorage.setItem(KEY, text.trim());
  await askRights();
}

export function signOut(why = "") {
  sessionStorage.removeItem(KEY);
  refusal.value = why;
  rights.value = null;
}

// Whether the token has the right that a verb on this topic needs; on any topic, where it is yet to be stated.
export function may(right, { topic, purpose }) {
  const own = rights.value;
  if (!own || own === "asking") return false;
  if (right === "fire") return own.fire.includes("*") || own.fire.includes(topic);
  const any = (wanted, name) => wanted === "*" || wanted === name;
  if (right === "listen") return own.listen.some((each) => topic === undefined || (any(each.topic, topic) && any(each.purpose, purpose)));
  return right === "watch" ? own.watch : own.admin;
}
