// The token is asked for once; it is kept until the tab is closed.
import { html, useSignal } from "../core/ui.js";

export function SignIn({ why, signIn }) {
  const text = useSignal("");
  const error = useSignal("");
  const submit = async (event) => {
    event.preventDefault();
    error.value = "";
    await signIn(text.value).catch((found) => (error.value = found.message));
  };
  return html`<main class="start">
    <h1>Solar Wind</h1>
    <form onSubmit=${submit}>
      <div class="field"><label for="token">Token</label>
        <input id="token" type="password" autocomplete="off" required value=${text.value} onInput=${(event) => (text.value = event.target.value)} />
        <small>It is kept until this tab is closed. Make one with <code>solarwind token create NAME --watch</code>, or <code>--admin</code>.</small></div>
      ${(error.value || why) && html`<p class="failure" role="alert">${error.value || why}</p>`}
      <p class="buttons"><button type="submit" class="strong">Sign in</button></p>
    </form>
  </main>`;
}
