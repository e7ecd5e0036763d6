// The system prompt, and how answers are drawn: what a request says of these holds for the panel and for the judge.

import { h, uniqueId } from "./dom.js";

const NUMBERS = {
  temperature: { label: "Temperature", min: 0, max: 2, step: 0.05 },
  max_tokens: { label: "Longest answer, in tokens", min: 1, step: 1 },
};

/** The fields; `onChange({system, sampling})` is called with what was entered, `show(choice)` shows a choice. */
export function samplingOptions(onChange) {
  const system = h("textarea", { id: uniqueId("system"), rows: 2, placeholder: "None" });
  const numbers = Object.entries(NUMBERS).map(([name, { label, ...range }]) => {
    const input = h("input", { type: "number", id: uniqueId(name), placeholder: "As configured", ...range });
    return { name, input, element: h("div", { className: "picker" }, h("label", { for: input.id }, label), input) };
  });
  const prompt = h("div", { className: "picker wide" }, h("label", { for: system.id }, "System prompt"), system);
  const change = () => {
    const entered = numbers.filter(({ input }) => input.value !== "" && input.checkValidity());
    const sampling = Object.fromEntries(entered.map(({ name, input }) => [name, Number(input.value)]));
    onChange({ system: system.value.trim(), sampling });
  };
  for (const field of [system, ...numbers.map(({ input }) => input)]) field.addEventListener("change", change);
  return {
    elements: [...numbers.map((each) => each.element), prompt],
    show(choice) {
      if (system.value.trim() !== (choice.system ?? "")) system.value = choice.system ?? "";
      for (const { name, input } of numbers) if (input.checkValidity()) input.value = choice.sampling?.[name] ?? "";
    },
  };
}
