// Work that is not urgent, in slices between frames, so that no single task holds up scrolling and typing.

const SLICE_MS = 8;

const waiting = [];
let isScheduled = false;

/** Call `task` soon; tasks run in the order in which they came. */
export function later(task) {
  waiting.push(task);
  schedule();
}

/** Resolves at once while this slice has time left, else in a later slice: to be awaited between steps of long work. */
export function slicer(nowMs = () => performance.now(), next = nextSlice) {
  let began = nowMs();
  return async () => {
    if (nowMs() - began < SLICE_MS) return;
    await next();
    began = nowMs();
  };
}

function nextSlice() {
  return new Promise((resolve) => later(resolve));
}

function schedule() {
  if (isScheduled || !waiting.length) return;
  isScheduled = true;
  // A timer, not a frame: a tab in the background has no frames.
  setTimeout(runSlice);
}

function runSlice() {
  isScheduled = false;
  const end = performance.now() + SLICE_MS;
  try {
    do waiting.shift()();
    while (waiting.length && performance.now() < end);
  } finally {
    schedule();
  }
}
