// The texts and figures of the Machine view. Pure functions, without a document.

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** Bytes in MiB or GiB. */
export function formatBytes(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  return bytes < GIB ? `${Math.round(bytes / MIB)} MiB` : `${(bytes / GIB).toFixed(1)} GiB`;
}

export function formatPercent(share) {
  return share === null || share === undefined ? "–" : `${Math.round(share * 100)}%`;
}

export function formatNumber(value) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}

/** The colour class of a state. */
export function stateTone(state) {
  return { ready: "good", failed: "bad", unhealthy: "bad", stopped: "quiet", asleep: "quiet" }[state] ?? "warn";
}

/** Whether the engine is starting, so that the progress bar is shown. */
export function isStarting(engine) {
  return ["waiting", "loading", "restarting"].includes(engine.state) || (engine.state === "asleep" && engine.progress > 0);
}

/** The stage of an engine, and how long its start still takes. */
export function stageText(engine) {
  if (!engine.stage || engine.stage === engine.state) return "";
  const left = engine.remaining_s ? `, about ${Math.ceil(engine.remaining_s)} s left` : "";
  // The reason has a row of its own.
  const stage = engine.reason ? engine.stage.replace(`: ${engine.reason}`, "") : engine.stage;
  return `${stage}${left}`;
}

/** What a replica does: the stage of its start, its calls from here, and how many broke with it. */
export function replicaText(replica) {
  const broke = replica.failed ? `, ${replica.failed} broke` : "";
  const calls = `${replica.in_flight} of ${replica.max_num_seqs} calls${broke}`;
  return [stageText(replica), calls].filter(Boolean).join(" · ");
}

/** The engines and their replicas, by name: whatever has a state of its own. */
export function withReplicas(engines) {
  const replicas = Object.values(engines).flatMap((each) => each.replicas ?? []);
  return { ...engines, ...Object.fromEntries(replicas.map((each) => [each.name, each])) };
}

/** Why the engine does not run, or, after it has recovered, when and why it failed last. */
export function reasonText(engine) {
  if (engine.reason) return `Reason: ${engine.reason}`;
  return engine.last_failure ? `last failed ${failureText(engine.last_failure)}` : "";
}

/** When and why an engine failed. `time` is in seconds since 1970; the time of day is the reader's, with the date if it is another day's. */
export function failureText({ time, reason, log }, now = new Date()) {
  const at = new Date(1000 * time);
  const clock = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  const day = at.toDateString() === now.toDateString() ? "" : `${at.toLocaleDateString()} `;
  return `${day}${clock}: ${reason}${log ? ` (log: ${log})` : ""}`;
}

export function restartsText(engine) {
  const requested = engine.restarts_asked ? `, ${engine.restarts_asked} requested` : "";
  const wakes = engine.wakes ? `, woken ${engine.wakes === 1 ? "once" : `${engine.wakes} times`}` : "";
  return engine.restarts === undefined ? "–" : `${engine.restarts}${requested}${wakes}`;
}

/** A row of the recent runs. */
export function runCells(run) {
  const when = new Date(run.time).toLocaleTimeString();
  const status = run.error ? `${run.status}: ${run.error.type}` : run.status;
  return [when, [run.model], status, run.total_ms === null ? "–" : (run.total_ms / 1000).toFixed(2), run.id];
}

/** A row of the last calls. */
export function callCells(call) {
  const when = new Date(1000 * call.time).toLocaleTimeString();
  const code = call.status_code === 200 && call.status ? "" : ` ${call.status_code ?? ""}`;
  const status = `${call.status ?? ""}${code}`.trim() || "–";
  const called = call.model ? [call.model] : call.route;
  const seconds = call.total_ms === null ? "–" : (call.total_ms / 1000).toFixed(2);
  const tokens = [formatNumber(call.prompt_tokens), formatNumber(call.completion_tokens)];
  return [when, called, call.key ?? "–", status, seconds, ...tokens];
}

/** A row of the tool servers: the state says why it has no tools, or which were left out. */
export function toolServerCells([name, each]) {
  const notes = each.problem ?? each.notes.join("; ");
  const tools = each.problem ? "–" : each.tools;
  const state = notes ? `${each.state}: ${notes}` : each.state;
  return [[name], state, tools, formatNumber(each.calls), formatNumber(each.failed), each.confined_by];
}

/** What an engine serves, as pairs of a title and a text; what is not known is left out. */
export function factPairs(facts) {
  const tokens = (count) => `${count} tokens`;
  const pairs = [
    ["Weights", facts.weights],
    ["From", facts.url ?? facts.hub_id],
    ["Revision", facts.revision],
    ["Digest", facts.digest],
    ["Computes in", facts.dtype],
    ["KV cache in", facts.kv_cache_dtype === "auto" ? facts.dtype : facts.kv_cache_dtype],
    ["Context", facts.max_model_len === undefined ? null : tokens(facts.max_model_len)],
    ["Requests at once", facts.max_num_seqs],
  ];
  return pairs.filter(([, value]) => value !== undefined && value !== null && value !== "").map(([title, value]) => [title, String(value)]);
}

/** The summary in one line; screen readers are told when it changes. */
export function summaryText(machine) {
  const engines = Object.values(machine.engines ?? {});
  const up = engines.filter((each) => each.state === "ready" || each.state === "asleep").length;
  const failed = Object.entries(machine.engines ?? {}).filter(([, each]) => each.state === "failed");
  const answering = Object.values(machine.ensembles ?? {}).filter((each) => each.answers).length;
  const all = Object.keys(machine.ensembles ?? {}).length;
  const lost = failed.length ? ` Failed: ${failed.map(([name]) => name).join(", ")}.` : "";
  return `${up} of ${engines.length} engines ready; ${answering} of ${all} ensembles answer.${lost}`;
}

/** The confirmation of an action: the question, the consequences, and the text of the button. */
export function confirmation(action, name) {
  const words = {
    restart: "Its process ends and a new one starts. Its current requests fail; runs go on without it.",
    sleep: "It frees its memory and accepts no requests until it is woken. Its current requests fail.",
    wake: "It loads again, then accepts requests.",
    start: "It failed too often. It is started again with all its attempts.",
  }[action];
  const verb = { restart: "Restart", sleep: "Put to sleep", wake: "Wake", start: "Start" }[action] ?? action;
  return { title: `${verb} ${name}?`, words: words ?? "", verb };
}

/**
 * The bars of one device, each `{title, segments, label}`: the plan (one for each swap group), and what is used now.
 * A segment is `{name, words, bytes, share}`; the name is null for other processes, and where the driver does not tell what
 * engines hold, as in many containers, for engines and others together. The free memory is the rest.
 */
export function memoryBars(device, engines) {
  const entries = Object.entries(device.engines ?? {});
  const here = entries.map(([name, bytes]) => ({ name, bytes, engine: engines[name] ?? {} }));
  const turns = [...new Set(here.map((each) => each.engine.turn).filter((turn) => Number.isInteger(turn)))].sort();
  const planned = (turns.length ? turns : [null]).map((turn) => ({
    title: turn === null ? "planned" : `planned, swap group ${turn + 1}`,
    parts: here.filter((each) => !Number.isInteger(each.engine.turn) || each.engine.turn === turn),
  }));
  const held = here
    .filter((each) => each.engine.used_bytes)
    .map((each) => ({ name: each.name, bytes: each.engine.used_bytes / Math.max(1, each.engine.gpus?.length ?? 1) }));
  const taken = device.total_bytes - device.free_bytes;
  const ours = held.reduce((sum, each) => sum + each.bytes, 0);
  const untold = here.some((each) => each.engine.state === "ready" && !each.engine.used_bytes);
  const others = { name: null, words: untold ? "engines and others" : "others", bytes: Math.max(0, taken - ours) };
  return [...planned.map(({ title, parts }) => bar(title, parts, device)), bar("used", [...held, others], device)];
}

function bar(title, holders, device) {
  const segments = [];
  let room = device.total_bytes;
  for (const { name, words = name, bytes } of holders) {
    const shown = Math.min(bytes, room);
    room -= shown;
    if (shown > 0) segments.push({ name, words, bytes, share: shown / device.total_bytes });
  }
  const parts = segments.map((each) => `${each.words} ${formatBytes(each.bytes)}`).join(", ");
  const label = `${device.device}, ${title}: ${parts || "nothing"} of ${formatBytes(device.total_bytes)}`;
  return { title, segments, label };
}
