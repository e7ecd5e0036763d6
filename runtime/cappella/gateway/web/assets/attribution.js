// Which members' answers a sentence resembles: similar words, not proof. Pure functions, without a document.

/** From here on a sentence counts as said by a member, or by several together. */
export const SAID = 0.7;
/** From here on it counts as partly said. */
export const PARTLY = 0.45;
/** A sentence of less weight, such as "Yes.", is too short to be attributed. */
export const MIN_WEIGHT = 2;
/** The share of the sentence's weight that a source must add to be named. */
export const MIN_SHARE = 0.12;

// From here on a passage is what a point of a comparison may rest on: points are short, and in the judge's own words.
const ALIKE = 0.3;
const NUMBER_WEIGHT = 3;
const COMMON_WEIGHT = 0.25;
const COMMON = new Set(
  (
    "a an the of in on at to for from by with as is are was were be been it its this that these those and or but if" +
    " then than so there here which who what when where how has have had do does did will would can could may i you" +
    " he she we they his her their our your my me him them us also"
  ).split(" "),
);
const NEGATION = /^(?:not|no|never|none|nobody|neither|nor|cannot|unknown|\p{L}+n['’]t)$/u;
// In a script without spaces each character is a word.
const WORD = new RegExp(
  [
    String.raw`\p{N}[\p{N}.,:/-]*\p{N}|\p{N}`,
    String.raw`[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]`,
    String.raw`[\p{L}\p{M}]+(?:['’]\p{L}+)*`,
  ].join("|"),
  "gu",
);
const ENDING = /[.!?…]+["'”’)\]]*(?=\s)|[。！？]+["'”’）」』]*|\n+/g;
const ABBREVIATION = /(?:^|[\s(])(?:mr|mrs|ms|dr|prof|st|vs|no|e\.g|i\.e|cf|approx|\p{L})\.$/iu;

/** The start and end of each sentence of a text. */
export function sentences(text) {
  const found = [];
  let from = 0;
  const take = (to) => {
    const inside = text.slice(from, to);
    const start = from + inside.length - inside.trimStart().length;
    const end = from + inside.trimEnd().length;
    if (end > start) found.push({ start, end });
    from = to;
  };
  for (const ending of text.matchAll(ENDING)) {
    const to = ending.index + ending[0].length;
    const continues = /^\s+\p{Ll}/u.test(text.slice(to, to + 8)) || ABBREVIATION.test(text.slice(from, to));
    if (ending[0][0] === "\n" || !continues || ending[0][0] !== ".") take(to);
  }
  take(text.length);
  return found;
}

/**
 * The sources of each sentence. `answers` are `{name, passages}`, the passages being a member's sentences in order.
 * `kind` is said, joined (by several together), partly, none or short; `missing` are the words that no answer has.
 * `sources` are `{name, score, at, isNegated}`, best first: `at` are indices of passages, `isNegated` means that either the
 * passage or the sentence negates something.
 */
export function attribute(said, answers) {
  const read = answers.map(readAnswer);
  return said.map((text) => attributeSentence(text, read));
}

/** An answer as `attributeSentence` and `bestPassages` take it: its passages, alone and in pairs. */
export function readAnswer({ name, passages }) {
  return { name, windows: windowsOf(passages) };
}

/** The sources of one sentence in answers that were read. */
export function attributeSentence(text, answers) {
  return traceOf(features(text), answers);
}

/** The passage of each answer that is most like a text, `{name, score, at}`, where any is at all alike. */
export function bestPassages(text, answers) {
  const sentence = features(text);
  if (sentence.grams.length === 0) return [];
  return answers.map((answer) => bestOf(sentence, answer)).filter((each) => each.score >= ALIKE);
}

/** How many sentences can be traced at all, and how many resemble what a member said at least in part. */
export function supportOf(found) {
  const traceable = found.filter((each) => each.kind !== "short");
  return { traceable: traceable.length, supported: traceable.filter((each) => each.kind !== "none").length };
}

function traceOf(sentence, answers) {
  if (sentence.weight < MIN_WEIGHT) return { kind: "short", score: 0, sources: [], missing: [] };
  const missing = missingFrom(sentence, answers);
  const sources = answers.map((answer) => bestOf(sentence, answer)).filter((each) => each.score > 0);
  sources.sort((a, b) => b.score - a.score);
  const best = sources[0]?.score ?? 0;
  if (best >= SAID)
    return { kind: "said", score: best, sources: named(sources.filter((each) => each.score >= PARTLY)), missing };
  const joined = combineSources(sentence, sources);
  const score = similarity(sentence, sharesOf(joined));
  if (score < PARTLY) return { kind: "none", score, sources: [], missing };
  const isJoined = score >= SAID && joined.length > 1 && !joined.some((each) => each.isNegated);
  return { kind: isJoined ? "joined" : "partly", score, sources: named(joined), missing };
}

function named(sources) {
  return sources.map(({ name, score, at, isNegated }) => ({ name, score, at, isNegated }));
}

function missingFrom(sentence, answers) {
  const isThere = (key) => answers.some(({ windows }) => windows.some((window) => window.keys.has(key)));
  return sentence.words.filter((word) => word.weight >= 1 && !isThere(word.key)).map((word) => word.text);
}

/** The sources that each add enough, best first. */
function combineSources(sentence, sources) {
  const taken = [];
  let covered = 0;
  for (const source of sources) {
    const now = coverage(sentence, sharesOf([...taken, source]));
    if (now - covered >= MIN_SHARE) {
      taken.push(source);
      covered = now;
    }
  }
  return taken;
}

function sharesOf(sources) {
  return new Set(sources.flatMap((each) => [...each.shares]));
}

/** The passage of one answer, a sentence or two in a row, that is most like the sentence. */
function bestOf(sentence, { name, windows }) {
  let best = { name, score: 0, at: [], shares: new Set(), isNegated: false };
  for (const window of windows) {
    const shares = new Set(sentence.grams.map((gram) => gram.key).filter((key) => window.keys.has(key)));
    const isNegated = window.negates !== sentence.negates;
    const score = similarity(sentence, shares) * (isNegated ? 0.5 : 1);
    // Of equal scores the shorter passage wins: single sentences come before pairs.
    if (score > best.score + 0.001) best = { name, score, at: window.at, shares, isNegated };
  }
  return best;
}

/** The share, by weight, of a sentence's words and word pairs that were found. */
function coverage(sentence, there) {
  const found = sentence.grams.reduce((sum, gram) => sum + (there.has(gram.key) ? gram.weight : 0), 0);
  return found / sentence.grams.reduce((sum, gram) => sum + gram.weight, 0);
}

/** The coverage; below SAID where some numbers are missing, and below PARTLY where all are. */
function similarity(sentence, there) {
  const numbers = sentence.words.filter((word) => word.isNumber);
  const found = numbers.filter((word) => there.has(word.key)).length;
  const most = found === numbers.length ? 1 : found === 0 ? PARTLY - 0.05 : SAID - 0.01;
  return Math.min(coverage(sentence, there), most);
}

function windowsOf(passages) {
  const read = passages.map(features);
  const single = read.map((each, at) => ({
    at: [at],
    keys: new Set(each.grams.map((gram) => gram.key)),
    negates: each.negates,
  }));
  const pairs = single.slice(1).map((next, at) => ({
    at: [at, at + 1],
    keys: new Set([...single[at].keys, ...next.keys]),
    negates: next.negates,
  }));
  // Where one of two sentences negates, it is unclear what the pair negates.
  return [...single, ...pairs.filter((pair) => single[pair.at[0]].negates === pair.negates)];
}

function features(text) {
  const words = [...text.matchAll(WORD)].map(([word]) => wordOf(word));
  const pairs = words.slice(1).map((word, at) => ({
    key: `${words[at].key} ${word.key}`,
    weight: (words[at].weight + word.weight) / 2,
  }));
  return {
    words,
    grams: [...words, ...pairs],
    weight: words.reduce((sum, word) => sum + word.weight, 0),
    negates: words.some((word) => NEGATION.test(word.key)),
  };
}

function wordOf(text) {
  const isNumber = /^\p{N}/u.test(text);
  const key = isNumber ? text.replaceAll(",", "") : text.toLowerCase().normalize("NFKC").replaceAll("’", "'");
  return { text, key, isNumber, weight: isNumber ? NUMBER_WEIGHT : COMMON.has(key) ? COMMON_WEIGHT : 1 };
}
