// The public API, as every view calls it. The key lives in this tab alone.

import { createParser } from "./sse.js";

const KEY = "cappella-key";

/** What the server refused, in its own words; `retryAfterS` where it says when to come back. */
export class ApiError extends Error {
  constructor(status, error = {}, retryAfterS = null) {
    super(error.message || `The server answered ${status}.`);
    this.status = status;
    this.code = error.code ?? null;
    this.param = error.param ?? null;
    this.details = error;
    this.retryAfterS = retryAfterS;
  }
}

export const api = {
  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  },
  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  },

  /** The JSON at a path. Throws ApiError, or TypeError where nobody answers. */
  async get(path) {
    return (await call(path)).json();
  },

  async post(path, body) {
    return (await call(path, { method: "POST", body: JSON.stringify(body ?? {}) })).json();
  },

  /** Ask for a stream of chat completion chunks and hand each on. Ends with it, or throws; `signal` breaks it off. */
  async stream(body, onChunk, signal) {
    const request = { method: "POST", body: JSON.stringify({ ...body, stream: true }), signal };
    const reply = await call("/v1/chat/completions", request);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = createParser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (const chunk of parse(value)) {
        if (chunk.error) throw new ApiError(chunk.error.status ?? 200, chunk.error);
        onChunk(chunk);
      }
    }
  },
};

async function call(path, options = {}) {
  const reply = await fetch(path, { ...options, headers: headers(options.body) });
  if (!reply.ok) throw await errorOf(reply);
  return reply;
}

function headers(body) {
  return {
    ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    ...(api.key ? { Authorization: `Bearer ${api.key}` } : {}),
  };
}

async function errorOf(reply) {
  const retryAfterS = Number(reply.headers.get("Retry-After")) || null;
  const body = await reply.json().catch(() => ({}));
  return new ApiError(reply.status, body.error, retryAfterS);
}
