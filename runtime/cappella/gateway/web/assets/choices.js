// The controls that say how a run goes: ensemble, preset, strategy, analysis, panel, judge.

import { fill, freshId, h, say } from "./dom.js";
import { ANALYSES, MOST_SEATS, STRATEGIES, modelsOf, untouched } from "./request.js";

/** Controls over a catalogue: `element` to show, `value()` to send, `set(choice)` to take over. */
export function choices(catalogue, { onChange = () => {} } = {}) {
  const { ensembles, models } = catalogue;
  let choice = untouched(ensembles[0]);
  const element = h("div", { className: "choices" });

  const change = (changed) => {
    choice = { ...choice, ...changed };
    draw();
    onChange(choice);
  };
  const ensembleOf = () => ensembles.find((each) => each.id === choice.model);
  const seats = () => choice.panel ?? modelsOf(ensembleOf().panel);

  const ensemble = picker("Ensemble", (id) => change(untouched(ensembles.find((each) => each.id === id))));
  const preset = picker("Preset", (name) => change({ preset: name }));
  const strategy = picker("Strategy", (name) => change({ strategy: name }));
  const analysis = picker("Analysis", (name) => change({ analysis: name }));
  const judge = picker("Judge", (name) => change({ judge: name }));
  const panel = h("fieldset", { className: "seats" });
  element.append(ensemble.element, preset.element, strategy.element, analysis.element, judge.element, panel);

  function draw() {
    const own = ensembleOf();
    ensemble.offer(
      ensembles.map(({ id, name }) => [id, name]),
      choice.model,
    );
    preset.offer([["", "None"], ...own.presets.map((name) => [name, name])], choice.preset);
    const asIs = choice.preset ? "As the preset says" : "As configured";
    strategy.offer([["", asIs], ...Object.entries(STRATEGIES)], choice.strategy);
    analysis.offer([["", asIs], ...Object.entries(ANALYSES)], choice.analysis);
    judge.offer(
      [["", choice.preset ? asIs : `${own.judge} (as configured)`], ...models.map((name) => [name, name])],
      choice.judge,
    );
    ensemble.element.hidden = ensembles.length < 2;
    preset.element.hidden = own.presets.length === 0;
    drawSeats();
  }

  function drawSeats() {
    const focused = panel.contains(document.activeElement) ? document.activeElement.dataset.does : null;
    const taken = seats();
    const put = (panelNow) => change({ panel: panelNow });
    const rows = models.map((model) => {
      const count = taken.filter((each) => each === model).length;
      const fewer = () => put(taken.toSpliced(taken.lastIndexOf(model), 1));
      const more = () => put([...taken, model]);
      return h(
        "div",
        { className: `seat ${count ? "taken" : ""}` },
        h("span", { className: "seat-name" }, model),
        step("−", `One seat less for ${model}`, fewer, count === 0 || taken.length === 1),
        h("span", { className: "seat-count number" }, String(count)),
        step("+", `One seat more for ${model}`, more, taken.length >= MOST_SEATS),
      );
    });
    const reset =
      choice.panel &&
      h(
        "button",
        { type: "button", className: "quiet", "data-does": "reset", onclick: () => put(null) },
        "As configured",
      );
    const summed = `${taken.length} of at most ${MOST_SEATS} seats`;
    fill(panel, h("legend", {}, "Panel"), ...rows, h("div", { className: "seat-sum small muted" }, summed, reset));
    if (focused) [...panel.querySelectorAll("[data-does]")].find((each) => each.dataset.does === focused)?.focus();
  }

  draw();
  return {
    element,
    value: () => choice,
    ensemble: ensembleOf,
    seats,
    set(wanted) {
      choice = wanted;
      draw();
      onChange(choice);
    },
  };
}

function step(sign, label, onclick, disabled) {
  return h("button", { type: "button", "aria-label": label, "data-does": label, onclick, disabled }, sign);
}

/** A labelled select whose options may change. */
function picker(label, onPick) {
  const id = freshId("pick");
  const select = h("select", { id });
  select.addEventListener("change", () => onPick(select.value));
  return {
    element: h("div", { className: "picker" }, h("label", { for: id }, label), select),
    offer(options, chosen) {
      const known = [...select.options].map((each) => `${each.value}\n${each.text}`).join("\n");
      if (known !== options.map(([value, text]) => `${value}\n${text}`).join("\n")) {
        fill(select, ...options.map(([value, text]) => h("option", { value }, text)));
      }
      select.value = chosen;
    },
  };
}

/** What is asked, in one line: the ensemble, its panel, then its judge. */
export function castLine(element, controls) {
  const { judge, strategy, preset } = controls.value();
  const own = controls.ensemble();
  const panel = preset && !controls.value().panel ? `preset ${preset}` : controls.seats().join(", ");
  const how = strategy === "vote" ? "vote" : `${strategy === "select" ? "picked" : "judged"} by ${judge || own.judge}`;
  say(element, `${own.name}: ${panel} · ${how}`);
}
