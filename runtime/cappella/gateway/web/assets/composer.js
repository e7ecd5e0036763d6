// The box for the question, with the run options below it.

import { h, setText } from "./dom.js";
import { sendKeysHint, sendOnEnter } from "./enter_key.js";
import { isLongPaste } from "./question.js";
import { runOptions, showOptions } from "./run_options.js";

/** `send(question, pastes)`, `stop()` and `clear()` are called when the user asks for them. */
export function createComposer(models, { send, stop, clear }) {
  const summary = h("span", { className: "options-summary" });
  const controls = runOptions(models, { onChange: () => showOptions(summary, controls) });
  showOptions(summary, controls);
  const text = h("textarea", {
    id: "question",
    rows: 1,
    placeholder: "Ask the ensemble…",
    "aria-describedby": "send-keys",
  });
  const sendButton = h("button", { type: "submit", className: "primary" }, "Ask");
  const startOver = h(
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
  const settings = h("details", { className: "settings" }, h("summary", {}, summary), controls.element);
  const form = h(
    "form",
    { className: "composer" },
    h("label", { className: "unseen", for: "question" }, "Your question"),
    h("div", { className: "write" }, text, sendButton),
    h("div", { className: "row below" }, settings, sendKeysHint("send-keys"), startOver),
  );
  startOver.hidden = true;
  let isRunning = false;
  const takePastes = rememberPastes(text);

  const submit = () => {
    const question = text.value.trim();
    if (isRunning) return stop();
    if (!question) return text.focus();
    text.value = "";
    settings.open = false;
    fitHeight();
    send(question, takePastes());
  };
  const fitHeight = () => {
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight + 2, innerHeight * 0.4)}px`;
  };
  text.addEventListener("input", fitHeight);
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
    setQuestion(question) {
      text.value = question;
      fitHeight();
      text.focus();
    },
    /** Whether there is a conversation to clear. */
    setStarted(isStarted) {
      startOver.hidden = !isStarted;
    },
    setRunning(value) {
      isRunning = value;
      setText(sendButton, isRunning ? "Stop" : "Ask");
      sendButton.classList.toggle("primary", !isRunning);
    },
  };
}

/** Remember long texts that are pasted or dropped into a field; returns a function that takes them out. */
function rememberPastes(field) {
  let pastes = [];
  const remember = (transfer) => {
    // The value of a field has newlines for line ends, and the question is trimmed.
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
