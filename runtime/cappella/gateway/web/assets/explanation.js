// How a finished answer was made: whose words it resembles, how it was decided, where the time went.

import { attribute } from "./attribution.js";
import { attributionView } from "./attribution_view.js";
import { decisionView } from "./decision.js";
import { h } from "./dom.js";
import { markSentences } from "./sentence_spans.js";
import { waterfallView } from "./waterfall_view.js";

/** Add to a turn what is known of its finished run. */
export function showExplanation(view, run) {
  if (run.fusion.responses?.length) {
    const sentences = markSentences(view.answer);
    const answers = run.fusion.responses
      .filter((each) => view.members.columns.has(each.model))
      .map(({ model }) => {
        const passages = markSentences(view.members.columns.get(model).text);
        return { name: model, passages };
      });
    const texts = answers.map(({ name, passages }) => ({ name, passages: passages.map((each) => each.text) }));
    const found = attribute(
      sentences.map((each) => each.text),
      texts,
    );
    if (found.some((each) => each.kind !== "short")) {
      view.trace.append(attributionView(view.answer, sentences, answers, found));
    }
  }
  const decided = decisionView(run);
  if (decided) view.more.append(h("section", { className: "part" }, h("h3", {}, "How it was decided"), decided));
  if (run.usage?.fusion_details?.length) {
    view.more.append(h("section", { className: "part" }, h("h3", {}, "Where the time went"), waterfallView(run)));
  }
}
