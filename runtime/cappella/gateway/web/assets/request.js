// The body of a request from the chosen options and the conversation, and the options as text.

import { contentOf } from "./attachments.js";
import { formatTokens } from "./format.js";

export const ANALYSES = {
  before: "Before: compare first, then write",
  alongside: "Alongside: compare while writing",
  off: "Off: no comparison",
};
export const MAX_SEATS = 8;

/** Ensembles with their seats, the single models, and the strategies with their summaries, from the reply of /v1/models. */
export function readModels(reply) {
  const ensembles = reply.data.filter((each) => each.panel);
  // Those that write: the others can be neither asked nor seated.
  const models = reply.data.filter((each) => !each.panel && (each.task ?? "generate") === "generate").map((each) => each.id);
  return {
    models,
    strategies: reply.strategies,
    ensembles: ensembles.map(
      ({ id, panel, judge, presets = [], examples = [], notice = "", context_length: context = null, architecture }) => ({
        id,
        name: id.replace(/^cappella\//, ""),
        panel,
        judge,
        presets,
        examples,
        notice,
        context,
        takesImages: architecture?.input_modalities.includes("image") ?? false,
      }),
    ),
  };
}

/** The choice that changes nothing of an ensemble's configuration. */
export function defaultChoice(ensemble) {
  return { model: ensemble.id, preset: "", strategy: "", analysis: "", judge: "", panel: null };
}

/** The body of a chat completion of a single model, which tells its tokens at the end. */
export function modelRequestBody({ model, system, sampling }, question) {
  const messages = [{ role: "user", content: question }];
  if (system) messages.unshift({ role: "system", content: system });
  return { model, messages, ...sampling, stream_options: { include_usage: true } };
}

/** The body of a row of a batch: one question, asked as chosen, without what a page shows of a run. */
export function rowBody(choice, question) {
  const { fusion, ...body } = requestBody(choice, [], question);
  const { include_events: _, include_intermediate_responses: __, ...chosen } = fusion;
  return Object.keys(chosen).length ? { ...body, fusion: chosen } : body;
}

/** The body of a chat completion: the conversation so far, the new question, and the options that were changed. */
export function requestBody(choice, turns, question, attachments = []) {
  const fusion = { include_events: true, include_intermediate_responses: true };
  if (choice.preset) fusion.preset = choice.preset;
  if (choice.strategy) fusion.strategy = choice.strategy;
  if (choice.analysis) fusion.analysis = choice.analysis;
  if (choice.judge) fusion.model = choice.judge;
  if (choice.panel) fusion.analysis_models = choice.panel;
  const { temperature, max_tokens } = choice.sampling ?? {};
  if (temperature !== undefined) fusion.temperature = temperature;
  if (max_tokens !== undefined) fusion.max_completion_tokens = max_tokens;
  const messages = turns
    .filter((turn) => turn.answer)
    .flatMap((turn) => [
      { role: "user", content: contentOf(turn.question, turn.attachments) },
      { role: "assistant", content: turn.answer },
    ]);
  if (choice.system) messages.unshift({ role: "system", content: choice.system });
  messages.push({ role: "user", content: contentOf(question, attachments) });
  return { model: choice.model, messages, ...choice.sampling, fusion };
}

/** The models of a panel of seats: `alto#2` is alto's second seat. */
export function seatModels(seats) {
  return seats.map((seat) => seat.replace(/#\d+$/, ""));
}

/** The options that were changed, as text; empty if none was. */
export function describeChoice(choice) {
  const words = [
    choice.preset && `preset ${choice.preset}`,
    choice.strategy,
    choice.analysis && `analysis ${choice.analysis}`,
    choice.panel && `panel ${choice.panel.join(", ")}`,
    choice.judge && `judge ${choice.judge}`,
    choice.sampling?.temperature !== undefined && `temperature ${choice.sampling.temperature}`,
    choice.sampling?.max_tokens !== undefined && `at most ${formatTokens(choice.sampling.max_tokens)}`,
    choice.system && "with a system prompt",
  ];
  return words.filter(Boolean).join(" · ");
}
