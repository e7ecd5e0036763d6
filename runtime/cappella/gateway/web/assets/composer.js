// Where a question is written, and how it shall be answered is chosen.

import { castLine, choices } from "./choices.js";
import { h, say } from "./dom.js";

/** `send(question)`, `stop()` and `clear()` are the caller's; `running(is)` says whether there is something to stop. */
export function composer(catalogue, { send, stop, clear }) {
  const cast = h("span", { className: "cast" });
  const controls = choices(catalogue, { onChange: () => castLine(cast, controls) });
  castLine(cast, controls);
  const text = h("textarea", {
    id: "question",
    rows: 1,
    placeholder: "Ask the ensemble…",
    "aria-describedby": "send-keys",
  });
  const go = h("button", { type: "submit", className: "primary" }, "Ask");
  const fresh = h(
    "button",
    {
      type: "button",
      className: "quiet",
      onclick: () => {
        clear();
        text.focus();
      },
    },
    "Start over",
  );
  const settings = h("details", { className: "settings" }, h("summary", {}, cast), controls.element);
  const form = h(
    "form",
    { className: "composer" },
    h("label", { className: "unseen", for: "question" }, "Your question"),
    h("div", { className: "write" }, text, go),
    h(
      "div",
      { className: "row below" },
      settings,
      h(
        "span",
        { className: "keys small muted", id: "send-keys" },
        h("kbd", {}, "Ctrl"),
        " ",
        h("kbd", {}, "Enter"),
        " sends",
      ),
      fresh,
    ),
  );
  fresh.hidden = true;
  let isRunning = false;

  const submit = () => {
    const question = text.value.trim();
    if (isRunning) return stop();
    if (!question) return text.focus();
    text.value = "";
    settings.open = false;
    fit();
    send(question);
  };
  const fit = () => {
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight + 2, innerHeight * 0.4)}px`;
  };
  text.addEventListener("input", fit);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!isRunning) submit();
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && settings.open) {
      settings.open = false;
      settings.querySelector("summary").focus();
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });

  return {
    element: form,
    controls,
    focus: () => text.focus({ preventScroll: true }),
    put(question) {
      text.value = question;
      fit();
      text.focus();
    },
    /** Whether there is a conversation to leave. */
    begun(is) {
      fresh.hidden = !is;
    },
    running(is) {
      isRunning = is;
      say(go, is ? "Stop" : "Ask");
      go.classList.toggle("primary", !is);
    },
  };
}
