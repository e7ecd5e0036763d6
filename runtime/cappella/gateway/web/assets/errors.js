// What an error means, in words, and what the user can do about it.

/** An error as `{title, words, hint, remedy, waitS}`. Remedies: key, wait, loading, retry and change. */
export function describeError(error) {
  const hint = error.details?.hint ?? null;
  const common = { title: "", words: error.message, hint, remedy: "retry", waitS: error.retryAfterS ?? null };
  if (error.status === undefined) {
    return { ...common, title: "The server does not answer", words: "It may have stopped, or the connection was lost." };
  }
  return { ...common, ...(BY_CODE[error.code] ?? BY_STATUS[error.status] ?? { title: "The run failed" }) };
}

const BY_CODE = {
  judge_failed: { title: "The judge gave no answer" },
  insufficient_quorum: { title: "Too few members answered" },
  context_length_exceeded: { title: "The conversation is too long", remedy: "change" },
  overloaded: { title: "The server is busy", remedy: "wait" },
  rate_limit_exceeded: { title: "The rate limit of this key is reached", remedy: "wait" },
  model_not_ready: { title: "The engines are still loading", remedy: "loading" },
  batches_not_kept: { title: "This server takes no batches", remedy: "change" },
  batches_unavailable: { title: "The server cannot read or write its batches now" },
  batch_not_found: { title: "There is no such batch", remedy: "change" },
  batch_refused: { title: "The batch does not allow that now", remedy: "change" },
  quota_exceeded: { title: "This key may keep no more files", remedy: "change" },
  file_not_found: { title: "There is no such file", remedy: "change" },
  deadline_exceeded: { title: "The deadline was exceeded" },
};
const BY_STATUS = {
  400: { title: "The server does not accept this request", remedy: "change" },
  401: { title: "A key is needed", remedy: "key" },
  403: { title: "This key is not allowed to do that", remedy: "key" },
  404: { title: "This model does not exist", remedy: "change" },
  413: { title: "The request is too long", remedy: "change" },
  429: { title: "The server is busy", remedy: "wait" },
  502: { title: "The engines failed" },
  503: { title: "The server is not ready", remedy: "loading" },
  504: { title: "The deadline was exceeded" },
};
