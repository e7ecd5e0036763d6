// The public API, for all views. The key is kept in this tab only.

import { eventParser } from "./sse.js";

const KEY = "cappella-key";

/** An error reply of the server; `retryAfterS` if it says when to try again. */
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

  /** The JSON at a path. Throws ApiError, or TypeError if the server does not answer. */
  async get(path) {
    return (await call(path)).json();
  },

  async post(path, body) {
    return (await call(path, { method: "POST", body: JSON.stringify(body ?? {}) })).json();
  },

  async delete(path) {
    return (await call(path, { method: "DELETE" })).json();
  },

  /** Send a form, such as one with a file. Throws like `get`. */
  async form(path, data) {
    return (await call(path, { method: "POST", body: data })).json();
  },

  /** What is at a path, as a file. Throws like `get`. */
  async blob(path) {
    return (await call(path)).blob();
  },

  /** The text at a path, of which no more is read than about so many bytes, and whether that is all. Throws like `get`. */
  async beginning(path, bytes) {
    const reader = (await call(path)).body.getReader();
    const pieces = [];
    for (let left = bytes; left > 0; left -= pieces.at(-1).length) {
      const { done, value } = await reader.read();
      if (done) return { text: await new Blob(pieces).text(), isAll: true };
      pieces.push(value.length > left ? value.subarray(0, left) : value);
    }
    await reader.cancel();
    return { text: await new Blob(pieces).text(), isAll: false };
  },

  /** Send the bytes of a file. Throws like `get`. */
  async upload(path, file) {
    const request = { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } };
    return (await call(path, request)).json();
  },

  /** Stream a chat completion and call `onChunk` with each chunk; `signal` cancels it. Throws like `get`. */
  async stream(body, onChunk, signal) {
    const request = { method: "POST", body: JSON.stringify({ ...body, stream: true }), signal };
    const reply = await call("/v1/chat/completions", request);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = eventParser();
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
  const reply = await fetch(path, { ...options, headers: { ...headers(options.body), ...options.headers } });
  if (!reply.ok) throw await errorOf(reply);
  return reply;
}

function headers(body) {
  return {
    ...(typeof body === "string" ? { "Content-Type": "application/json" } : {}),
    ...(api.key ? { Authorization: `Bearer ${api.key}` } : {}),
  };
}

async function errorOf(reply) {
  const retryAfterS = Number(reply.headers.get("Retry-After")) || null;
  const body = await reply.json().catch(() => ({}));
  return new ApiError(reply.status, body.error, retryAfterS);
}
