// Who is there: a role and its password, as for any client.

import { post } from "./api.js";
import { fill, h, problem } from "./dom.js";

/** Shows the form; `done` is called with the role that has signed in. */
export function signIn(main, done) {
  const wrong = h("div", { "aria-live": "polite" });
  const user = h("input", { name: "user", autocomplete: "username", required: true,
    autocapitalize: "none", spellcheck: "false", value: "" });
  const password = h("input", { name: "password", type: "password", required: true,
    autocomplete: "current-password" });
  const button = h("button", { class: "main" }, "Sign in");
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    fill(wrong);
    try {
      const body = { user: user.value, password: password.value };
      const answer = await post("/api/sign-in", body);
      done((await answer.json()).role);
    } catch (error) {
      fill(wrong, problem(error));
      password.value = "";
      password.focus();
    } finally {
      button.disabled = false;
    }
  };
  fill(main, h("div", { class: "card sign-in" },
    h("h1", {}, h("img", { src: "/console/mark.svg", alt: "", width: 28, height: 28 }),
      "Headwater"),
    h("form", { onsubmit: submit },
      h("label", {}, "Role", user),
      h("label", {}, "Password", password),
      button, wrong)));
  user.focus();
}
