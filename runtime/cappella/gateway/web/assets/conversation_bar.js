// The head of a conversation: its name, which can be changed, and how to save, print or link it.

import { fill, h, setText } from "./dom.js";
import { isComposing } from "./enter_key.js";
import { asJson, asMarkdown, fileName } from "./export.js";
import { saveFile } from "./save_file.js";

const WAYS = { markdown: "As Markdown", json: "As JSON, with the trace", print: "Print…" };

/** The head; `show(conversation)` shows that of a conversation, or nothing for one without turns. */
export function conversationBar({ renamed }) {
  let conversation = null;
  let endEdit = null;
  const title = h("h2", { className: "kept-title" });
  const rename = h("button", { type: "button", className: "quiet", onclick: () => edit() }, "Rename");
  const save = h(
    "select",
    { "aria-label": "Save this conversation" },
    h("option", { value: "" }, "Save…"),
    ...Object.entries(WAYS).map(([value, words]) => h("option", { value }, words)),
  );
  const element = h("div", { className: "kept-bar", hidden: true }, title, rename, save);
  save.addEventListener("change", () => {
    const way = save.value;
    save.value = "";
    if (way === "print") print();
    if (way === "markdown") saveFile(fileName(conversation.head.title, "md"), asMarkdown(conversation), "text/markdown");
    if (way === "json") saveFile(fileName(conversation.head.title, "json"), asJson(conversation), "application/json");
  });

  const edit = () => {
    const edited = conversation;
    const input = h("input", { "aria-label": "Name of the conversation", value: edited.head.title });
    const end = (takes) => {
      if (endEdit !== end) return;
      endEdit = null;
      const name = input.value.trim();
      if (takes && name && name !== edited.head.title) renamed(edited, name);
      draw();
    };
    endEdit = end;
    input.addEventListener("keydown", (event) => {
      if (isComposing(event) || !["Enter", "Escape"].includes(event.key)) return;
      event.preventDefault();
      end(event.key === "Enter");
      rename.focus();
    });
    input.addEventListener("blur", () => end(true));
    rename.hidden = true;
    fill(title, input);
    input.select();
  };
  const draw = () => {
    rename.hidden = false;
    element.hidden = conversation.turns.length === 0;
    if (title.firstElementChild) fill(title);
    setText(title, conversation.head.title);
  };
  return {
    element,
    show(shown) {
      // What is being typed stays.
      if (endEdit && shown === conversation) return;
      endEdit?.(true);
      conversation = shown;
      draw();
    },
  };
}
