// The difference of two texts, word by word.

const MAX_CELLS = 4_000_000;

/** Runs of words that are `same`, only in the first (`left`) or only in the second (`right`), in order. */
export function wordDiff(left, right) {
  const a = wordsOf(left);
  const b = wordsOf(right);
  let head = 0;
  while (head < a.length && head < b.length && a[head].key === b[head].key) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail).key === b.at(-1 - tail).key) tail += 1;
  const middle = middleRuns(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const runs = [...same(b.slice(0, head)), ...middle, ...same(b.slice(b.length - tail))];
  return mergedRuns(runs);
}

/** The share of words that both texts have in the same order; 1 for equal texts. */
export function similarity(runs) {
  const count = (kind) => runs.filter((run) => run.kind === kind).reduce((sum, run) => sum + run.words, 0);
  const both = 2 * count("same");
  const all = both + count("left") + count("right");
  return all === 0 ? 1 : both / all;
}

function wordsOf(text) {
  return [...text.matchAll(/\S+\s*/g)].map(([word]) => ({ text: word, key: word.trim() }));
}

/** Differences by the longest common subsequence; texts too long for its table differ as a whole. */
function middleRuns(a, b) {
  if ((a.length + 1) * (b.length + 1) > MAX_CELLS) return [...runsOf("left", a), ...runsOf("right", b)];
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i * width + j] =
        a[i].key === b[j].key
          ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const runs = [];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    if (a[i].key === b[j].key) {
      runs.push(...same([b[j]]));
      i += 1;
      j += 1;
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
      runs.push(...runsOf("left", [a[i]]));
      i += 1;
    } else {
      runs.push(...runsOf("right", [b[j]]));
      j += 1;
    }
  }
  return [...runs, ...runsOf("left", a.slice(i)), ...runsOf("right", b.slice(j))];
}

function same(words) {
  return runsOf("same", words);
}

function runsOf(kind, words) {
  return words.map(({ text }) => ({ kind, text, words: 1 }));
}

function mergedRuns(runs) {
  const found = [];
  for (const run of runs) {
    const last = found.at(-1);
    if (last?.kind === run.kind) {
      last.text += run.text;
      last.words += 1;
    } else {
      found.push({ ...run });
    }
  }
  return found;
}
