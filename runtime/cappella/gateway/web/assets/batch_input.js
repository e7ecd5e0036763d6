// Makes the rows of a batch: a file of OpenAI's rows as it is, or a CSV and a template. Pure functions, without a document.

const CHAT = "/v1/chat/completions";
/** The rows of a CSV are made in the browser's memory. */
export const MAX_CSV_BYTES = 20 * 2 ** 20;
export const MAX_MADE_CHARS = 200 * 2 ** 20;

/** Why a file is no input, in words for the user. */
export class UnusableInput extends Error {}

/** The endpoint of a file of OpenAI's rows, from its `beginning`. Throws UnusableInput. */
export function endpointOf(beginning) {
  const first = beginning.replace(/^\ufeff/, "").split("\n").find((line) => line.trim());
  const url = /"url"\s*:\s*"([^"]+)"/.exec(first ?? "")?.[1];
  if (!url || !/"custom_id"\s*:/.test(first)) {
    throw new UnusableInput('Its first line is no row of OpenAI\'s batches: {"custom_id": …, "method": "POST", "url": "/v1/chat/completions", "body": {…}}.');
  }
  return url;
}

/** The rows of a CSV as `{columns, records}`; its first row names the columns. Throws UnusableInput. */
export function readCsv(text) {
  const head = text.slice(0, text.search(/\n|$/));
  const separator = [",", ";", "\t"].find((each) => head.includes(each)) ?? ",";
  const [columns, ...rows] = cells(text, separator);
  if (!columns?.some(Boolean)) throw new UnusableInput("Its first line must name the columns.");
  const twice = columns.find((name, at) => columns.indexOf(name) !== at);
  if (twice !== undefined) throw new UnusableInput(`It has two columns named ${JSON.stringify(twice)}.`);
  if (!rows.length) throw new UnusableInput("It has no rows below its columns.");
  const uneven = rows.findIndex((row) => row.length !== columns.length);
  if (uneven >= 0) {
    throw new UnusableInput(`Row ${uneven + 1} has ${rows[uneven].length} cells, and there are ${columns.length} columns.`);
  }
  return { columns, records: rows.map((row) => new Map(columns.map((name, at) => [name, row[at]]))) };
}

/** The template with each {column} replaced by the record's value; {{ and }} are braces. Throws UnusableInput. */
export function filled(template, record) {
  return template.replaceAll(/\{\{|\}\}|\{([^{}]*)\}/g, (whole, name) => {
    if (name === undefined) return whole[0];
    if (!record.has(name)) throw new UnusableInput(`There is no column {${name}}: the columns are ${[...record.keys()].join(", ")}.`);
    return record.get(name);
  });
}

/** The lines of an input file that asks the template of each record; `bodyOf` makes the body of a question. Throws UnusableInput. */
export function chatLines(records, template, bodyOf) {
  let made = 0;
  return records.map((record, at) => {
    const row = { custom_id: `row-${at + 1}`, method: "POST", url: CHAT, body: bodyOf(filled(template, record)) };
    const line = `${JSON.stringify(row)}\n`;
    made += line.length;
    if (made > MAX_MADE_CHARS) throw new UnusableInput("The rows would be too large for a browser: use `cappella batch`.");
    return line;
  });
}

/** The cells of each row; those in quotes may have separators, line feeds and doubled quotes in them. */
function cells(text, separator) {
  const rows = [];
  let row = [];
  const cell = new RegExp(`"([^"]*(?:""[^"]*)*)"|[^${separator}"\\r\\n]*`, "y");
  for (let at = text.startsWith("\ufeff") ? 1 : 0; at < text.length; ) {
    cell.lastIndex = at;
    const [whole, quoted] = cell.exec(text);
    at += whole.length;
    const end = /\r?\n|$/y;
    end.lastIndex = at;
    const line = end.exec(text);
    if (!line && text[at] !== separator) {
      throw new UnusableInput(`Row ${rows.length} has a quote in the middle of a cell, or one that does not end.`);
    }
    row.push(quoted === undefined ? whole : quoted.replaceAll('""', '"'));
    at += line ? line[0].length : 1;
    // A separator before the end of the text: one more cell, which is empty.
    if (!line && at === text.length) row.push("");
    if (!line && at < text.length) continue;
    if (row.length > 1 || row[0]) rows.push(row);
    row = [];
  }
  return rows;
}
