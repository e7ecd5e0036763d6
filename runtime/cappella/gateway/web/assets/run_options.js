// The controls for the options of a run: ensemble, preset, strategy, analysis, panel, judge.

import { fill, h, setText, uniqueId } from "./dom.js";
import { ANALYSES, defaultChoice, MAX_SEATS, seatModels } from "./request.js";
import { samplingOptions } from "./sampling_options.js";

/**
 * The controls: `element` to show, `value()` is the current choice, `set(choice)` changes it. With `withModels` a single
 * model can be chosen in the place of an ensemble; `ensemble()` is undefined then.
 */
export function runOptions(catalogue, { onChange = () => {}, withModels = false } = {}) {
  const { ensembles, models, strategies } = catalogue;
  let choice = defaultChoice(ensembles[0]);
  const element = h("div", { className: "choices" });

  const change = (changed) => {
    choice = { ...choice, ...changed };
    draw();
    onChange(choice);
  };
  const ensembleOf = () => ensembles.find((each) => each.id === choice.model);
  const seats = () => choice.panel ?? seatModels(ensembleOf().panel);

  const singles = withModels ? models.map((name) => [name, `${name} (one model)`]) : [];
  const choiceOf = (id) => defaultChoice(ensembles.find((each) => each.id === id) ?? { id });
  const ensemble = picker(withModels ? "Ensemble or model" : "Ensemble", (id) => change(choiceOf(id)));
  const preset = picker("Preset", (name) => change({ preset: name }));
  const strategy = picker("Strategy", (name) => change({ strategy: name }));
  const analysis = picker("Analysis", (name) => change({ analysis: name }));
  const judge = picker("Judge", (name) => change({ judge: name }));
  const panel = h("fieldset", { className: "seats" });
  const sampling = samplingOptions(change);
  const pickers = [ensemble, preset, strategy, analysis, judge].map((each) => each.element);
  element.append(...pickers, ...sampling.elements, panel);

  function draw() {
    const configured = ensembleOf();
    ensemble.setOptions([...ensembles.map(({ id, name }) => [id, name]), ...singles], choice.model);
    ensemble.element.hidden = ensembles.length + singles.length < 2;
    for (const each of [preset.element, strategy.element, analysis.element, judge.element, panel]) each.hidden = !configured;
    sampling.show(choice);
    if (!configured) return;
    preset.setOptions([["", "None"], ...configured.presets.map((name) => [name, name])], choice.preset);
    const unchanged = choice.preset ? "As the preset says" : "As configured";
    strategy.setOptions([["", unchanged], ...Object.entries(strategies)], choice.strategy);
    analysis.setOptions([["", unchanged], ...Object.entries(ANALYSES)], choice.analysis);
    judge.setOptions(
      [["", choice.preset ? unchanged : `${configured.judge ?? "None"} (as configured)`], ...models.map((name) => [name, name])],
      choice.judge,
    );
    preset.element.hidden = configured.presets.length === 0;
    drawSeats();
  }

  function drawSeats() {
    const focused = panel.contains(document.activeElement) ? document.activeElement.dataset.action : null;
    const taken = seats();
    const setPanel = (panel) => change({ panel });
    const rows = models.map((model) => {
      const count = taken.filter((each) => each === model).length;
      const fewer = () => setPanel(taken.toSpliced(taken.lastIndexOf(model), 1));
      const more = () => setPanel([...taken, model]);
      return h(
        "div",
        { className: `seat ${count ? "taken" : ""}` },
        h("span", { className: "seat-name name" }, model),
        stepButton("−", `Remove a seat of ${model}`, fewer, count === 0 || taken.length === 1),
        h("span", { className: "seat-count number" }, String(count)),
        stepButton("+", `Add a seat of ${model}`, more, taken.length >= MAX_SEATS),
      );
    });
    const reset =
      choice.panel &&
      h(
        "button",
        { type: "button", className: "quiet", "data-action": "reset", onclick: () => setPanel(null) },
        "As configured",
      );
    const total = `${taken.length} of at most ${MAX_SEATS} seats`;
    fill(panel, h("legend", {}, "Panel"), ...rows, h("div", { className: "seat-sum small muted" }, total, reset));
    if (focused) [...panel.querySelectorAll("[data-action]")].find((each) => each.dataset.action === focused)?.focus();
  }

  draw();
  return {
    element,
    value: () => choice,
    ensemble: ensembleOf,
    seats,
    /** Of an ensemble that is there no more, only what holds for any is taken. */
    set(newChoice) {
      const isThere = ensembles.some((each) => each.id === newChoice.model);
      const { system, sampling } = newChoice;
      choice = isThere ? newChoice : { ...defaultChoice(ensembles[0]), system, sampling };
      draw();
      onChange(choice);
    },
  };
}

function stepButton(sign, label, onclick, disabled) {
  return h("button", { type: "button", "aria-label": label, "data-action": label, onclick, disabled }, sign);
}

/** A labelled select whose options may change. */
function picker(label, onPick) {
  const id = uniqueId("pick");
  const select = h("select", { id });
  select.addEventListener("change", () => onPick(select.value));
  return {
    element: h("div", { className: "picker" }, h("label", { for: id }, label), select),
    setOptions(options, chosen) {
      const known = [...select.options].map((each) => `${each.value}\n${each.text}`).join("\n");
      if (known !== options.map(([value, text]) => `${value}\n${text}`).join("\n")) {
        fill(select, ...options.map(([value, text]) => h("option", { value }, text)));
      }
      select.value = chosen;
    },
  };
}

/** Show the current choice in one line. */
export function showOptions(element, controls) {
  setText(element, optionsText(controls));
}

/** The current choice in one line: the ensemble, its panel, then its judge; or the single model. */
export function optionsText(controls) {
  const { model, judge, strategy, preset } = controls.value();
  const ensemble = controls.ensemble();
  if (!ensemble) return `${model}, one model`;
  const panel = preset && !controls.value().panel ? `preset ${preset}` : controls.seats().join(", ");
  const verb = strategy === "select" ? "picked" : "judged";
  const judging = judge || ensemble.judge;
  const judged = judging ? `${verb} by ${judging}` : strategy ? verb : "no judge";
  const how = strategy === "vote" ? "vote" : judged;
  return `${ensemble.name}: ${panel} · ${how}`;
}
