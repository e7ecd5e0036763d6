// How a finished answer was made: whose words it resembles, how it was decided, where the time went.

import { attributeSentence, bestPassages, readAnswer, supportOf } from "./attribution.js";
import { attributionView } from "./attribution_view.js";
import { decisionView } from "./decision.js";
import { h } from "./dom.js";
import { slicer } from "./later.js";
import { ANYWHERE, PROSE, markSentences } from "./sentence_spans.js";
import { waterfallView } from "./waterfall_view.js";

const MIN_SUPPORT = 0.25;

/** Add to a turn what is known of its finished run: what takes long comes in slices. `notice` is the ensemble's, if it has one. */
export async function showExplanation(view, run, notice = "") {
  view.found.link(run, [...view.members.columns.values()].map((column) => column.text));
  const decided = decisionView(run);
  if (decided) view.more.append(h("section", { className: "part" }, h("h3", {}, "How it was decided"), decided));
  if (run.usage?.fusion_details?.length) {
    view.more.append(h("section", { className: "part" }, h("h3", {}, "Where the time went"), waterfallView(run)));
  }
  if (run.fusion.responses?.length) await showSources(view, run, notice);
}

async function showSources(view, run, notice) {
  const pause = slicer();
  const answers = await markedAnswers(view, run, pause);
  const read = [];
  for (const { name, passages } of answers) {
    read.push(readAnswer({ name, passages: passages.map((each) => each.text) }));
    await pause();
  }
  const sentences = markSentences(view.answer, PROSE);
  const found = [];
  for (const { text } of sentences) {
    found.push(attributeSentence(text, read));
    await pause();
  }
  const support = supportOf(found);
  if (support.traceable > 0) {
    const letters = Object.fromEntries(answers.map(({ name }, at) => [name, view.members.letterOf(name) ?? "ABCDEFGH"[at]]));
    view.trace.append(attributionView(view.answer, sentences, answers, found, letters));
    const words = supportText(support);
    if (words) view.notice.append(unsupported(words, notice));
  }
  for (const point of view.comparison.points()) {
    point.rest(passagesOf(point, answers, read), view.members);
    await pause();
  }
}

/** That no member supports an answer; what the ensemble is for may be the reason. */
function unsupported(words, notice) {
  return h("div", { className: "note warn unsupported" }, h("p", {}, words), notice && h("p", {}, notice));
}

/** Each member's answer with its sentences as elements. */
async function markedAnswers(view, run, pause) {
  const answers = [];
  for (const { model } of run.fusion.responses) {
    const column = view.members.columns.get(model);
    if (!column) continue;
    await pause();
    answers.push({ name: model, passages: markSentences(column.text, ANYWHERE) });
  }
  return answers;
}

/** The passages that a point of the comparison may rest on: of the members that it names, or of all. */
function passagesOf({ text, models }, answers, read) {
  const asked = read.filter(({ name }) => models === null || models.includes(name));
  return bestPassages(text, asked).map(({ name, at }) => {
    const { passages } = answers.find((each) => each.name === name);
    return { name, spans: at.flatMap((place) => passages[place].spans) };
  });
}

function supportText({ traceable, supported }) {
  if (supported / traceable >= MIN_SUPPORT) return null;
  const count = supported === 0 ? "none of its sentences resembles" : `${supported} of its ${traceable} sentences resemble`;
  return `The members do not support this answer: ${count} what they said. Compare it with their answers.`;
}
