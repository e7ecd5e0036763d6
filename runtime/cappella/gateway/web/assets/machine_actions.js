// What came of the actions that were asked of engines here: told once, when it is known.

const WANTED = { restart: "ready", start: "ready", wake: "ready", sleep: "stopped" };
const DONE = { restart: "runs again", start: "runs", wake: "is awake", sleep: "sleeps" };
const ENDED = ["failed"];

/** `tell(words)` is called with each outcome. */
export function actionOutcomes(tell, nowMs = () => performance.now()) {
  const open = new Map();
  return { began, look };

  /** An action was accepted, and left the engine in `state`. */
  function began(name, action, state) {
    open.set(name, { action, fromMs: nowMs(), hasLeft: state !== WANTED[action] || action === "sleep" });
  }

  /** Look at the states of all engines, and tell what has ended. */
  function look(engines) {
    for (const [name, each] of open) {
      const state = engines[name]?.state;
      // A restart begins with an engine that is still ready.
      if (state !== WANTED[each.action]) each.hasLeft = true;
      if (state !== undefined && !ENDED.includes(state) && !(state === WANTED[each.action] && each.hasLeft)) continue;
      open.delete(name);
      tell(outcome(name, each, engines[name]));
    }
  }

  function outcome(name, { action, fromMs }, engine) {
    const seconds = ((nowMs() - fromMs) / 1000).toFixed(1);
    if (engine === undefined) return `${name}: it is not part of this deployment any more.`;
    if (engine.state === "failed") return `${name}: ${engine.reason ?? engine.stage}.`;
    return `${name} ${DONE[action]}, after ${seconds} s.`;
  }
}
