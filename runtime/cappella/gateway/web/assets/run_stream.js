// Sends one request, follows its stream and reports the state of the run.

import { isFinished, newRun, withChunk, withEnd, withInterruption } from "./run_state.js";

const TICK_MS = 250;
// For so many times as long as showing a change took, but for no more than a tick, none is shown: a long block, as a list, is shown
// anew as a whole.
const REST = 4;

/**
 * Send a request. `onChange(run, nowMs)` is called at most once a frame, and for the clocks also while nothing comes. After each call
 * it rests: so that it takes a fifth of the time, or for 250 ms where a call takes more than 62 ms.
 * Returns `{stop(), done}`; `done` resolves to the finished run, and never rejects, whatever `onChange` throws.
 */
export function startRun(api, body, onChange) {
  const abort = new AbortController();
  let run = newRun(performance.now());
  let frame = 0;
  let restsUntilMs = 0;
  const notify = () => {
    frame = 0;
    const beganMs = performance.now();
    onChange(run, beganMs);
    const endedMs = performance.now();
    restsUntilMs = endedMs + Math.min(TICK_MS, REST * (endedMs - beganMs));
  };
  const schedule = () => {
    if (performance.now() >= restsUntilMs) frame ||= requestAnimationFrame(notify);
  };
  const onChunk = (chunk) => {
    run = withChunk(run, chunk, performance.now());
    schedule();
  };
  const timer = setInterval(schedule, TICK_MS);
  schedule();
  const done = readStream(api, body, onChunk, abort.signal).then((error) => {
    clearInterval(timer);
    cancelAnimationFrame(frame);
    if (!abort.signal.aborted) run = withEnd(run, performance.now());
    if (!isFinished(run)) run = withInterruption(run, abort.signal.aborted ? null : error, performance.now());
    try {
      notify();
    } catch (error) {
      reportError(error);
    }
    return run;
  });
  return { stop: () => abort.abort(), done };
}

/** The error that ended the stream, if one did. */
async function readStream(api, body, onChunk, signal) {
  try {
    await api.stream(body, onChunk, signal);
    return new TypeError("The stream ended before the answer did.");
  } catch (error) {
    return error;
  }
}
