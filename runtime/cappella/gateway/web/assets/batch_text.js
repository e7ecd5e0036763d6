// The words and figures of the Batches view. Pure functions, without a document.

import { formatBytes } from "./machine_text.js";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const UNFINISHED = ["validating", "in_progress", "finalizing", "cancelling"];
const TONES = { completed: "good", failed: "bad", expired: "bad", cancelled: "quiet" };
const TIMES = [
  ["Created", "created_at"],
  ["Completed", "completed_at"],
  ["Failed", "failed_at"],
  ["Expired", "expired_at"],
  ["Cancelled", "cancelled_at"],
];

/** Whether nothing of it changes any more. */
export function isOver(batch) {
  return !UNFINISHED.includes(batch.status);
}

/** The state of a batch as `{words, tone}`. */
export function stateOf(batch) {
  if (batch.progress?.paused && batch.status === "in_progress") return { words: "paused", tone: "warn" };
  return { words: batch.status.replace("_", " "), tone: TONES[batch.status] ?? "warn" };
}

/** Whether it waits for somebody to accept the models' new weights: the server says so in words alone. */
export function waitsForWeights(batch) {
  return /other weights/.test(batch.progress?.paused ?? "");
}

/** How many rows have ended: "8 of 10 rows, 1 failed". */
export function countsText({ total, completed, failed }) {
  const rows = `${number(completed + failed)} of ${number(total)} ${total === 1 ? "row" : "rows"}`;
  return failed ? `${rows}, ${number(failed)} failed` : rows;
}

/** How far the calls of one model are. */
export function phaseText({ done, waiting, running, tokens_per_s: speed }) {
  const all = done + waiting + running;
  const words = [`${number(done)} of ${number(all)} calls`, running && `${number(running)} running`, speed && `${number(Math.round(speed))} tokens/s`];
  return words.filter(Boolean).join(", ");
}

/** The time that is left, in words; empty where it is not known. */
export function leftText(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `about ${Math.round(seconds)} s left`;
  return seconds < 5400 ? `about ${Math.round(seconds / 60)} min left` : `about ${(seconds / 3600).toFixed(1)} h left`;
}

/** The size of a file. */
export function sizeText(bytes) {
  if (bytes < KIB) return `${bytes} ${bytes === 1 ? "byte" : "bytes"}`;
  return bytes < 10 * MIB ? `${(bytes / (bytes < MIB ? KIB : MIB)).toFixed(1)} ${bytes < MIB ? "KiB" : "MiB"}` : formatBytes(bytes);
}

/** What one may know of a batch, as pairs of a title and a text. `timeText` writes seconds since 1970. */
export function factPairs(batch, model, timeText) {
  const times = TIMES.filter(([, name]) => batch[name]).map(([title, name]) => [title, timeText(batch[name])]);
  if (!isOver(batch)) times.push(["Until", timeText(batch.expires_at)]);
  const tokens = batch.total_tokens ? [["Tokens", number(batch.total_tokens)]] : [];
  return [...(model ? [["Model", model]] : []), ["Endpoint", batch.endpoint], ...times, ...tokens, ["Id", batch.id]];
}

/** A mistake in the input file, in words. */
export function problemText({ line, message }) {
  return line === null ? message : `Line ${number(line)}: ${message}`;
}

function number(value) {
  return value.toLocaleString("en");
}
