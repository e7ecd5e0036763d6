// Server-sent events, as far as chat completions use them.

/** Takes text as it comes and returns the JSON objects that are whole by now; comments and `[DONE]` are none. */
export function createParser() {
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
