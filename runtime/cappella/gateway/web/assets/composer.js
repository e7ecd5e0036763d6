// Where a question is written, and how it shall be answered is chosen.

import { castLine, choices } from "./choices.js";
import { h, say } from "./dom.js";
import { sendKeysHint, sendOnEnter } from "./enter_key.js";
import { isLongPaste } from "./question.js";

/** `send(question, pastes)`, `stop()` and `clear()` are the caller's; `running(is)` says whether there is something to stop. */
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
      sendKeysHint("send-keys"),
      fresh,
    ),
  );
  fresh.hidden = true;
  let isRunning = false;
  const takePastes = rememberPastes(text);

  const submit = () => {
    const question = text.value.trim();
    if (isRunning) return stop();
    if (!question) return text.focus();
    text.value = "";
    settings.open = false;
    fit();
    send(question, takePastes());
  };
  const fit = () => {
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight + 2, innerHeight * 0.4)}px`;
  };
  text.addEventListener("input", fit);
  sendOnEnter(text, () => isRunning || submit());
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

/** Remember the long texts that are pasted or dropped into a field; returns a function that hands them over. */
function rememberPastes(field) {
  let pastes = [];
  const remember = (transfer) => {
    // A field keeps its line ends as newlines, and a question has no blanks around it.
    const pasted = (transfer?.getData("text/plain") ?? "").replaceAll(/\r\n?/g, "\n").trim();
    if (isLongPaste(pasted)) pastes.push(pasted);
  };
  field.addEventListener("paste", (event) => remember(event.clipboardData));
  field.addEventListener("drop", (event) => remember(event.dataTransfer));
  return () => {
    const taken = pastes;
    pastes = [];
    return taken;
  };
}
