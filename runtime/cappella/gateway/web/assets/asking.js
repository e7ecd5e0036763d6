// One run in the browser: sends it, follows its stream, and tells how far it is.

import { begun, brokenOff, heard, isOver } from "./run.js";

const TICK_MS = 250;

/**
 * Send a request. `onChange(run, nowMs)` comes at most once a frame, and while nothing is heard, for the clocks.
 * Returns `{stop(), done}`; `done` resolves to the run when it is over, however it ended.
 */
export function ask(api, body, onChange) {
  const abort = new AbortController();
  let run = begun(performance.now());
  let frame = 0;
  const show = () => {
    frame = 0;
    onChange(run, performance.now());
  };
  const soon = () => {
    frame ||= requestAnimationFrame(show);
  };
  const hear = (chunk) => {
    run = heard(run, chunk, performance.now());
    soon();
  };
  const ticking = setInterval(soon, TICK_MS);
  soon();
  const done = follow(api, body, hear, abort.signal).then((error) => {
    clearInterval(ticking);
    cancelAnimationFrame(frame);
    if (!isOver(run)) run = brokenOff(run, abort.signal.aborted ? null : error, performance.now());
    show();
    return run;
  });
  return { stop: () => abort.abort(), done };
}

/** The error that ended the stream, if one did. */
async function follow(api, body, hear, signal) {
  try {
    await api.stream(body, hear, signal);
    return new TypeError("The stream ended before the answer did.");
  } catch (error) {
    return error;
  }
}
