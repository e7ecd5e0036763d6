// What the Machine view says, from what the server told. Nothing here knows of a document.

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** Bytes for a person. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  return bytes < GIB ? `${Math.round(bytes / MIB)} MiB` : `${(bytes / GIB).toFixed(1)} GiB`;
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${Math.round(share * 100)}%`;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}

/** A state, in the tone that it has for who is responsible. */
export function toneOf(state) {
  return { ready: "good", failed: "bad", unhealthy: "bad", stopped: "quiet", asleep: "quiet" }[state] ?? "warn";
}

/** Whether the engine is on its way up, so that a bar has something to show. */
export function isStarting(engine) {
  return ["waiting", "loading", "restarting"].includes(engine.state);
}

/** What there is to say beside the state: the stage, and how long it still takes. */
export function stageOf(engine) {
  if (!engine.stage || engine.stage === engine.state) return "";
  const left = engine.remaining_s ? `, about ${Math.ceil(engine.remaining_s)} s left` : "";
  // The reason has a row of its own.
  const stage = engine.reason ? engine.stage.replace(`: ${engine.reason}`, "") : engine.stage;
  return `${stage}${left}`;
}

/** Why the engine failed, as far as the server says it. */
export function reasonOf(engine) {
  return engine.reason ? `Reason: ${engine.reason}` : "";
}

export function restartsOf(engine) {
  const asked = engine.restarts_asked ? `, ${engine.restarts_asked} asked for` : "";
  return engine.restarts === undefined ? "–" : `${engine.restarts}${asked}`;
}

/** One line on all of it: what screen readers are told when it changes. */
export function summaryOf(machine) {
  const engines = Object.values(machine.engines ?? {});
  const up = engines.filter((each) => each.state === "ready" || each.state === "asleep").length;
  const failed = Object.entries(machine.engines ?? {}).filter(([, each]) => each.state === "failed");
  const answering = Object.values(machine.ensembles ?? {}).filter((each) => each.answers).length;
  const all = Object.keys(machine.ensembles ?? {}).length;
  const lost = failed.length ? ` Given up: ${failed.map(([name]) => name).join(", ")}.` : "";
  return `${up} of ${engines.length} engines ready; ${answering} of ${all} ensembles answer.${lost}`;
}

/** Of the wish to do something to an engine: the question, what comes of it, the word on the button. */
export function confirmation(action, name) {
  const comes = {
    restart: "Its process ends and a new one starts. What it is writing now fails, and runs go on without it.",
    sleep: "It gives its memory back and takes no calls until somebody wakes it. What it is writing now fails.",
    wake: "It loads again and then takes calls.",
    start: "It was given up. It is tried again, as often as at first.",
  }[action];
  const verb = { restart: "Restart", sleep: "Put to sleep", wake: "Wake", start: "Start" }[action] ?? action;
  return { title: `${verb} ${name}?`, words: comes ?? "", verb };
}

/**
 * The bars of one device, each `{title, segments, label}`: the plan (one for each turn), and what is held now. A segment
 * is `{name, bytes, share}`; the name is null for what others hold, and what is free is what is left over.
 */
export function barsOf(device, engines) {
  const here = Object.entries(device.engines ?? {}).map(([name, bytes]) => ({ name, bytes, engine: engines[name] ?? {} }));
  const turns = [...new Set(here.map((each) => each.engine.turn).filter((turn) => Number.isInteger(turn)))].sort();
  const planned = (turns.length ? turns : [null]).map((turn) => ({
    title: turn === null ? "planned" : `planned, turn ${turn + 1}`,
    parts: here.filter((each) => !Number.isInteger(each.engine.turn) || each.engine.turn === turn),
  }));
  const held = here
    .filter((each) => each.engine.used_bytes)
    .map((each) => ({ name: each.name, bytes: each.engine.used_bytes / Math.max(1, each.engine.gpus?.length ?? 1) }));
  const taken = device.total_bytes - device.free_bytes;
  const ours = held.reduce((sum, each) => sum + each.bytes, 0);
  const others = { name: null, bytes: Math.max(0, taken - ours) };
  return [...planned.map(({ title, parts }) => bar(title, parts, device)), bar("used", [...held, others], device)];
}

function bar(title, parts, device) {
  const segments = [];
  let room = device.total_bytes;
  for (const { name, bytes } of parts) {
    const shown = Math.min(bytes, room);
    room -= shown;
    if (shown > 0) segments.push({ name, bytes, share: shown / device.total_bytes });
  }
  const told = segments.map((each) => `${each.name ?? "others"} ${size(each.bytes)}`).join(", ");
  return { title, segments, label: `${device.device}, ${title}: ${told || "nothing"} of ${size(device.total_bytes)}` };
}
