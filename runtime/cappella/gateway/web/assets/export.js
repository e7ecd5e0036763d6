// A conversation as a file: Markdown to read, JSON with the trace of each run.

import { readAnalysis } from "./analysis_view.js";
import { placeOf } from "./citations.js";
import { keptTurn } from "./conversation.js";
import { describeChoice } from "./request.js";

const MAX_NAME_CHARACTERS = 60;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;

/** The conversation in Markdown: questions, answers, and folded away below each what members and judge said. */
export function asMarkdown({ head, turns }) {
  return [`# ${head.title || "Conversation"}`, ...turns.map(turnMarkdown)].join("\n\n") + "\n";
}

/** The conversation as JSON; a turn has its `run` with the members' answers, the analysis, usage and trace. */
export function asJson({ head, turns }) {
  const { id, title, createdMs, changedMs } = head;
  const [created, changed] = [createdMs, changedMs].map((ms) => new Date(ms).toISOString());
  return `${JSON.stringify({ id, title, created, changed, turns: turns.map(keptTurn) }, null, 2)}\n`;
}

/** The name of a file for a conversation of this title. */
export function fileName(title, ending) {
  const name = title.replaceAll(/[^\p{L}\p{N}]+/gu, "-").slice(0, MAX_NAME_CHARACTERS).replaceAll(/^-|-$/g, "");
  return `${name || "conversation"}.${ending}`;
}

function turnMarkdown({ question, attachments = [], choice, answer, run }) {
  const attached = attachments.map(({ name }) => `*Attached: ${name}*`);
  const how = describeChoice(choice);
  const asked = ["## Question", question, ...attached, how && `*${how}*`];
  const answered = ["## Answer", answer ? deeper(answer) : "*No answer.*"];
  return [...asked, ...answered, ...(run ? [sourceList(run), ...evidence(run)] : [])].filter(Boolean).join("\n\n");
}

/** What the answer cites; the passages are quoted line by line. */
function sourceList(run) {
  const cited = (run.fusion?.sources ?? []).filter((each) => each.cited);
  const quoted = (text) => text.split("\n").map((line) => `  > ${line}`).join("\n");
  const lines = cited.map((each) => `- ${each.handle}: ${placeOf(each)}\n\n${quoted(each.text)}`);
  return lines.length ? ["### Sources", ...lines].join("\n\n") : null;
}

function evidence(run) {
  const members = Object.values(run.members).filter((member) => member.text);
  const parts = members.map(({ name, text }) => folded(`${name} answered`, deeper(text)));
  const analysis = run.analysis && comparison(readAnalysis(run.analysis, run.labels));
  return analysis ? [...parts, folded("The judge compared", analysis)] : parts;
}

function folded(title, text) {
  return `<details>\n<summary>${title}</summary>\n\n${text}\n\n</details>`;
}

function comparison({ contradictions, partial, unique, gaps, consensus }) {
  const said = ({ model, stance }) => `${model}: ${stance}`;
  const lists = {
    "They disagree": contradictions.map(({ topic, stances }) => `${topic} (${stances.map(said).join("; ")})`),
    "Only some cover": partial.map(({ models, point }) => `${point} (${models.join(", ")})`),
    "Only one says": unique.map(({ model, insight }) => `${insight} (${model})`),
    "None covers": gaps,
    "They agree": consensus,
  };
  const filled = Object.entries(lists).filter(([, points]) => points.length);
  return filled.map(([title, points]) => `**${title}**\n\n${points.map((point) => `- ${point}`).join("\n")}`).join("\n\n");
}

/** Headings of an answer stand below those of the file; lines of code stay as they are. */
function deeper(text) {
  let fence = null;
  const line = (words) => {
    const mark = words.match(FENCE)?.[1];
    if (mark && (fence === null || (mark[0] === fence[0] && mark.length >= fence.length))) fence = fence === null ? mark : null;
    return fence === null && /^#{1,4} /.test(words) ? `##${words}` : words;
  };
  return text.split("\n").map(line).join("\n");
}
