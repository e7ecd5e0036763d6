// Why a finished answer is what it is: whose words it resembles, how it was decided, where the time went.

import { h } from "./dom.js";
import { decisionView } from "./decision.js";
import { markSentences } from "./sentences.js";
import { traced } from "./support.js";
import { timeline } from "./timeline.js";
import { tracer } from "./tracer.js";

/** Put into a turn's view what is to be known of its run. */
export function showWhy(view, run) {
  if (run.fusion.responses?.length) {
    const said = markSentences(view.answer);
    const answers = run.fusion.responses
      .filter((each) => view.members.columns.has(each.model))
      .map(({ model }) => {
        const passages = markSentences(view.members.columns.get(model).text);
        return { name: model, passages };
      });
    const texts = answers.map(({ name, passages }) => ({ name, passages: passages.map((each) => each.text) }));
    const found = traced(
      said.map((each) => each.text),
      texts,
    );
    if (found.some((each) => each.kind !== "short")) view.trace.append(tracer(view.answer, said, answers, found));
  }
  const decided = decisionView(run);
  if (decided) view.more.append(h("section", { className: "part" }, h("h3", {}, "How it was decided"), decided));
  if (run.usage?.fusion_details?.length) {
    view.more.append(h("section", { className: "part" }, h("h3", {}, "Where the time went"), timeline(run)));
  }
}
