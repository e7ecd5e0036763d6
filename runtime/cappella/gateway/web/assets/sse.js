// Parses server-sent events, as far as chat completions use them.

/** A function from pieces of text to the JSON objects that each completes; it skips comments and `[DONE]`. */
export function eventParser() {
  let rest = "";
  return (text) => {
    rest += text;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    return blocks
      .map(dataOf)
      .filter((data) => data && data !== "[DONE]")
      .map((data) => JSON.parse(data));
  };
}

function dataOf(block) {
  const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
}
