// Rows of a batch's files: what was asked, and the answer or the error. Pure functions, without a document.

/** The values of the whole lines of a text; the last line of one that is cut is left out. */
export function wholeLines({ text, isAll }) {
  const lines = text.split("\n");
  if (!isAll) lines.pop();
  return lines.filter((each) => each.trim()).flatMap(parsed);
}

/** The model that the first row of a file asks, if its beginning has it. */
export function modelIn(beginning) {
  const [first] = beginning.split("\n");
  return /"model"\s*:\s*"([^"\\]+)"/.exec(first)?.[1] ?? null;
}

/** The first rows of the input, each `{id, question, answer, error}`; without both where they are not known. */
export function firstRows(input, output, errors, count) {
  const answered = new Map(output.map((line) => [line.custom_id, line]));
  const failed = new Map(errors.map((line) => [line.custom_id, line]));
  return input.slice(0, count).map(({ custom_id: id, body }) => ({
    id: String(id),
    question: questionOf(body ?? {}),
    answer: answered.has(id) ? answerOf(answered.get(id).response?.body ?? {}) : null,
    error: failed.has(id) ? errorOf(failed.get(id)) : null,
  }));
}

/** What a request asks, whatever its endpoint. */
export function questionOf({ messages, input, prompt }) {
  const asked = messages ?? input ?? prompt ?? "";
  if (typeof asked === "string") return asked;
  if (!Array.isArray(asked)) return JSON.stringify(asked);
  const last = asked.findLast((each) => each?.role === "user") ?? asked.at(-1);
  return typeof last === "string" ? last : textOf(last?.content) || JSON.stringify(last);
}

/** What a reply says, whatever its endpoint. */
export function answerOf(reply) {
  if (reply.object === "list") return reply.data?.length === 1 ? "1 vector" : `${reply.data?.length} vectors`;
  const choice = reply.choices?.[0];
  const outputs = (reply.output ?? []).map((each) => textOf(each.content)).filter(Boolean);
  const calls = choice?.message?.tool_calls?.map((each) => `${each.function?.name}(${each.function?.arguments})`) ?? [];
  const said = textOf(choice?.message?.content) || choice?.text || outputs.join("\n") || textOf(reply.content) || calls.join("\n");
  return said || JSON.stringify(reply);
}

/** Why a row has no answer. */
export function errorOf({ error, response }) {
  return error?.message ?? response?.body?.error?.message ?? `The server answered ${response?.status_code}.`;
}

function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.map((part) => part?.text ?? (part?.type ? `[${part.type}]` : "")).join("");
}

function parsed(line) {
  try {
    const value = JSON.parse(line);
    return value && typeof value === "object" ? [value] : [];
  } catch {
    return [];
  }
}
