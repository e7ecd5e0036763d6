// The box for the question, with the run options below it.

import { attachmentTray } from "./attachment_tray.js";
import { h, setText } from "./dom.js";
import { sendKeysHint, sendOnEnter } from "./enter_key.js";
import { fileIntake } from "./file_intake.js";
import { runOptions, showOptions } from "./run_options.js";

/**
 * `send({question, attachments})` and `stop()` are called when the user asks for them, `chosen()` after another ensemble was
 * chosen; `count(text)` resolves to a number of tokens; `current()` is the conversation that is shown.
 */
export function createComposer(api, models, { send, stop, count, chosen, current }) {
  const summary = h("span", { className: "options-summary" });
  const tray = attachmentTray({ count, context: () => controls.ensemble().context });
  let model = null;
  const changed = () => {
    showOptions(summary, controls);
    if (controls.value().model === model) return;
    model = controls.value().model;
    tray.recount();
    chosen();
  };
  const controls = runOptions(models, { onChange: changed });
  model = controls.value().model;
  showOptions(summary, controls);
  const text = h("textarea", {
    id: "question",
    rows: 1,
    placeholder: "Ask the ensemble…",
    "aria-describedby": "send-keys",
  });
  const sendButton = h("button", { type: "submit", className: "primary" }, "Ask");
  const settings = h("details", { className: "settings" }, h("summary", {}, summary), controls.element);
  const attachPlace = h("div", { className: "attach-place" });
  const form = h(
    "form",
    { className: "composer" },
    h("label", { className: "unseen", for: "question" }, "Your question"),
    tray.element,
    h("div", { className: "write" }, attachPlace, text, sendButton),
    h("div", { className: "row below" }, settings, sendKeysHint("send-keys")),
  );
  let isRunning = false;
  const intake = fileIntake(form, text, tray, () => ({ api, takesImages: controls.ensemble().takesImages }));
  attachPlace.append(...intake.elements);

  let isWaiting = false;
  const setWaiting = (value) => {
    isWaiting = value;
    tray.setAwaited(value);
  };
  /** Wait until the files are read, and see whether the question may be sent then. */
  const filesRead = async () => {
    const [conversation, failures] = [current(), tray.failures()];
    setWaiting(true);
    await intake.whenRead();
    setWaiting(false);
    // Without the file the question would be another one.
    if (tray.failures() > failures) return false;
    const isSame = current() === conversation && !isRunning;
    if (!isSame) tray.fail("The question was not sent: another conversation or run began while its files were read.");
    return isSame;
  };
  const submit = async () => {
    if (isRunning) return stop();
    if (isWaiting || !(await filesRead())) return;
    const question = text.value.trim();
    if (!question && tray.isEmpty()) return text.focus();
    send({ question, attachments: tray.attachments() });
    text.value = "";
    tray.clear();
    settings.open = false;
    fitHeight();
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
    setRunning(value) {
      isRunning = value;
      setText(sendButton, isRunning ? "Stop" : "Ask");
      sendButton.classList.toggle("primary", !isRunning);
    },
  };
}
