// The ways on when a conversation is too long for the models: leave out the oldest turns, or begin anew with a summary.

import { contentOf } from "./attachments.js";
import { h, setText } from "./dom.js";

const SUMMARY_OF = "Sum up this conversation, so that it can be continued by someone who has not read it. Keep names, numbers,"
  + " decisions and open questions. Write at most 200 words.";
const SUMMARY_FROM = "What was said before, in short:";

/** How many of the oldest turns to leave out, so that half of what was sent before is left, or one turn; at least one more. */
export function turnsToLeaveOut(turns, leftOut, sizeOf = sizeOfText) {
  const sizes = turns.slice(leftOut).map(sizeOf);
  let left = sizes.reduce((sum, size) => sum + size, 0);
  const most = left / 2;
  let count = 0;
  do left -= sizes[count++];
  while (left > most && count < sizes.length - 1);
  return leftOut + count;
}

/** The request for a summary of turns, as much of the end of them as the models can surely read. */
export function summaryQuestion(turns, contextTokens) {
  const talk = turns.map(({ question, attachments, answer }) => `Question: ${textOf(question, attachments)}\n\nAnswer: ${answer}`);
  // A token has at least one character in most scripts.
  return `${SUMMARY_OF}\n\n${talk.join("\n\n").slice(-(contextTokens ?? Infinity))}`;
}

/** A system prompt that begins a conversation with the summary of another. */
export function withSummary(system, summary) {
  return [system, `${SUMMARY_FROM}\n${summary}`].filter(Boolean).join("\n\n");
}

/** The buttons below the error: `leaveOut(count)` asks again; `summarise()` resolves to whether it began a new conversation. */
export function tooLongRemedy(earlier, leftOut, sizeOf, { leaveOut, summarise }) {
  const sent = earlier.length - leftOut;
  if (sent <= 0) return h("p", {}, "The question alone is too long: shorten it, or leave out an attachment.");
  const count = turnsToLeaveOut(earlier, leftOut, sizeOf);
  const turns = (number) => (number === 1 ? "the oldest turn" : `the ${number} oldest turns`);
  const button = (words, onclick) => h("button", { type: "button", onclick }, words);
  return h(
    "div",
    { className: "row" },
    count < earlier.length && button(`Leave out ${turns(count)}`, () => leaveOut(count)),
    button("Ask only this", () => leaveOut(earlier.length)),
    button("Begin anew with a summary", async ({ currentTarget }) => {
      currentTarget.disabled = true;
      setText(currentTarget, "The models sum up…");
      if (!(await summarise())) setText(currentTarget, "There is no summary: the models failed");
    }),
  );
}

/** The size of a turn in a request's body, with its images. */
export function sizeInBody({ question, attachments, answer }) {
  return JSON.stringify(contentOf(question, attachments)).length + answer.length;
}

/** The size of a turn for the models, as far as it is text. */
export function sizeOfText({ question, attachments, answer }) {
  return textOf(question, attachments).length + answer.length;
}

function textOf(question, attachments) {
  const content = contentOf(question, attachments);
  return typeof content === "string" ? content : content.at(-1).text;
}
