// What votes say. Pure functions, without a document.

/** The verdicts on two answers, and the words on their buttons. */
export const VERDICTS = { first: "The first", second: "The second", both: "Both are good", none: "Neither is good" };

const POINTS = { first: [1, 0], second: [0, 1], both: [0.5, 0.5], none: [0.5, 0.5] };

/** A row for each way, the best first: its votes, how often it was better, as good and worse, and its share. */
export function leaderboard(votes) {
  const by = new Map();
  for (const { ways, verdict } of votes) {
    // The same way twice says nothing about it.
    if (ways[0] === ways[1] || !POINTS[verdict]) continue;
    ways.forEach((way, at) => by.set(way, [...(by.get(way) ?? []), POINTS[verdict][at]]));
  }
  const share = (points) => points.reduce((sum, each) => sum + each, 0) / points.length;
  const count = (points, wanted) => String(points.filter((each) => each === wanted).length);
  return [...by]
    .sort(([, left], [, right]) => share(right) - share(left) || right.length - left.length)
    .map(([way, points]) => [
      way,
      String(points.length),
      count(points, 1),
      count(points, 0.5),
      count(points, 0),
      `${Math.round(share(points) * 100)}%`,
    ]);
}

/** A line of JSON for each question with an answer that was found good, as `cappella eval` reads them. */
export function questionLines(votes) {
  const lines = votes.flatMap(({ question, answers, verdict }) => {
    const good = { first: [answers[0]], second: [answers[1]], both: answers }[verdict] ?? [];
    const rubric = `The answer is as good as this one: ${good[0]}`;
    return good.length ? [JSON.stringify({ prompt: question, rubric })] : [];
  });
  return [...new Set(lines)].map((line) => `${line}\n`).join("");
}
