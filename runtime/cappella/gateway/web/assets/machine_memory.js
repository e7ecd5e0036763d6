// The memory of each device as bars, by engine: planned, and used now.

import { fill, h, setText } from "./dom.js";
import { formatBytes, memoryBars } from "./machine_text.js";

const TONES = 8;

export function memoryPicture() {
  const root = h("div", { className: "machine-devices" });
  const devices = new Map();
  return { root, show };

  function show(memory, engines) {
    const names = memory.map((each) => each.device);
    if ([...devices.keys()].join() !== names.join()) {
      devices.clear();
      names.forEach((name) => devices.set(name, devicePicture(name)));
      fill(root, [...devices.values()].map((each) => each.root));
    }
    const tones = new Map(Object.keys(engines).map((name, at) => [name, at % TONES]));
    for (const device of memory) devices.get(device.device).show(device, engines, tones);
  }
}

function devicePicture(name) {
  const words = h("span", { className: "muted small number" });
  const bars = h("div", { className: "machine-bars" });
  const legend = h("ul", { className: "machine-legend small" });
  const title = h("h3", {}, name === "memory" ? "This machine's memory" : name);
  const root = h("figure", { className: "machine-device" }, h("figcaption", {}, title, words), bars, legend);
  return { root, show };

  function show(device, engines, tones) {
    const busy = device.busy_percent === null || device.busy_percent === undefined ? "" : `; ${device.busy_percent}% busy`;
    setText(words, `${formatBytes(device.free_bytes)} of ${formatBytes(device.total_bytes)} free${busy}`);
    const wanted = memoryBars(device, engines);
    if (bars.children.length !== wanted.length) fill(bars, wanted.map(() => emptyBar()));
    wanted.forEach((bar, at) => draw(bars.children[at], bar, tones));
    const known = Object.keys(device.engines ?? {});
    if (legend.dataset.names !== known.join()) {
      legend.dataset.names = known.join();
      const entries = known.map((each) => entry(`tone-${tones.get(each) ?? 0}`, each));
      fill(legend, entries, entry("tone-others", "others"), entry("tone-free", "free"));
    }
  }
}

function entry(tone, words) {
  return h("li", {}, h("span", { className: `machine-swatch ${tone}`, "aria-hidden": "true" }), words);
}

function emptyBar() {
  const track = h("div", { className: "machine-track", role: "img" });
  return h("div", { className: "machine-bar" }, h("span", { className: "small muted" }), track);
}

function draw(element, bar, tones) {
  const [title, track] = element.children;
  setText(title, bar.title);
  track.setAttribute("aria-label", bar.label);
  if (track.children.length !== bar.segments.length) fill(track, bar.segments.map(() => h("span", {})));
  bar.segments.forEach((segment, at) => {
    const part = track.children[at];
    part.className = `machine-part ${segment.name === null ? "tone-others" : `tone-${tones.get(segment.name) ?? 0}`}`;
    part.title = `${segment.words}: ${formatBytes(segment.bytes)}`;
    part.style.width = `${segment.share * 100}%`;
  });
}
