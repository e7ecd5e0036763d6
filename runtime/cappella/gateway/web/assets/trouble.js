// What went wrong, in words, and what can be done about it.

/** What the user can do: give a key, wait for a place, wait for engines, ask again, or change the request. */
export function troubleOf(error) {
  const told = { title: "", words: error.message, remedy: "retry", waitS: error.retryAfterS ?? null };
  if (error.status === undefined) {
    return { ...told, title: "The server does not answer", words: "It may have stopped, or the connection broke." };
  }
  return { ...told, ...(BY_CODE[error.code] ?? BY_STATUS[error.status] ?? { title: "The run failed" }) };
}

const BY_CODE = {
  judge_failed: { title: "The judge gave no answer" },
  insufficient_quorum: { title: "Too few members answered" },
  context_length_exceeded: { title: "The conversation is too long", remedy: "change" },
  overloaded: { title: "The server is full", remedy: "wait" },
  rate_limit_exceeded: { title: "This key has used its minute", remedy: "wait" },
  model_not_ready: { title: "The engines are still loading", remedy: "loading" },
  deadline_exceeded: { title: "The time ran out" },
};
const BY_STATUS = {
  400: { title: "The request cannot be honoured", remedy: "change" },
  401: { title: "A key is needed", remedy: "key" },
  403: { title: "This key may not do that", remedy: "key" },
  404: { title: "There is no such model", remedy: "change" },
  413: { title: "That is too long", remedy: "change" },
  429: { title: "The server is full", remedy: "wait" },
  502: { title: "The engines failed" },
  503: { title: "The server is not ready", remedy: "loading" },
  504: { title: "The time ran out" },
};

/** Why a member gave no answer, for who does not know the word. */
export function memberReason(reason) {
  return MEMBER_REASONS[reason] ?? reason;
}

const MEMBER_REASONS = {
  straggler: "enough others were done, so it was not waited for",
  deadline: "it was not done when the time was up",
  cut: "enough members had failed, so it was not waited for",
  not_ready: "its engine is not up",
  engine_broke: "its engine broke off",
  empty_answer: "it said nothing",
  invalid_format: "its answer has not the form that was asked for",
  images_not_supported: "it takes no images",
  context_length_exceeded: "the conversation is longer than its context",
  budget: "the run's tokens were used up",
};

/** Why a run is not simply ok; null if it is. */
export function statusWords(fusion) {
  const lost = fusion.failed_models.filter((each) => each.reason !== "straggler").map((each) => each.model);
  switch (fusion.status) {
    case "degraded":
      if (fusion.failure_reason === "layer_below_quorum") {
        return "Degraded: in a later round too few members answered, so the answers of the round before were used.";
      }
      return fusion.failure_reason
        ? `Degraded: the judge failed (${fusion.failure_reason.replaceAll("_", " ")}).${standIn(fusion)}`
        : `Degraded: ${list(lost)} gave no answer. The rest of the panel was enough to go on.`;
    case "single":
      return "Only one member answered: nothing could be compared.";
    case "bypassed":
      return `One model answered alone${fusion.gate ? `: ${fusion.gate.reason}` : "."}`;
    default:
      return null;
  }
}

function standIn(fusion) {
  return fusion.chosen ? ` The answer is ${fusion.chosen}'s own: the one most like the others.` : "";
}

/** Names, with an "and". */
export function list(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** A short span of time, in seconds. */
export function seconds(ms) {
  if (ms === 0) return "0 s";
  if (ms < 995) return `${(ms / 1000).toFixed(2)} s`;
  return ms < 9950 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
}
