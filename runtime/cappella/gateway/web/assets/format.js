// Names, numbers and times as text.

/** Names with commas, and "and" before the last. */
export function joinNames(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** "1 token", "1,234 tokens". */
export function formatTokens(count) {
  return `${count.toLocaleString("en")} ${count === 1 ? "token" : "tokens"}`;
}

/** A duration in seconds. */
export function formatSeconds(ms) {
  if (ms === 0) return "0 s";
  if (ms < 995) return `${(ms / 1000).toFixed(2)} s`;
  return ms < 9950 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
}
