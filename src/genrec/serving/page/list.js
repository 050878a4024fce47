// The ranked list: probability bars, reasons, like and hide.

import { drawing, element } from "./dom.js";

const REASONS = 4;

export function percent(share) {
  const value = 100 * share;
  return `${value >= 0.1 ? value.toFixed(2) : value.toPrecision(2)} %`;
}

function reason(each, widest) {
  const share = 50 * Math.min(1, Math.abs(each.effect) / widest);
  const up = each.effect >= 0;
  const bar = drawing(
    ["rect", { class: up ? "for" : "against", x: `${up ? 50 : 50 - share}%`, y: 0,
      width: `${share}%`, height: 8, rx: 2 }],
    ["line", { class: "mid", x1: "50%", x2: "50%", y1: 0, y2: 8 }]);
  const factor = Math.exp(each.effect);
  const text = factor >= 10 ? factor.toFixed(0) : factor.toFixed(2);
  return element("li", {}, element("span", {}, each.title), bar,
    element("span", { title: `${each.effect.toFixed(3)} nats` }, `× ${text}`));
}

function why(item) {
  if (!item.because?.length) return [];
  const shown = item.because.slice(0, REASONS);
  const widest = Math.max(...shown.map((each) => Math.abs(each.effect)), 1e-9);
  const best = shown.find((each) => each.effect > 0);
  const summary = best ? `Because of ${best.title}` : "Why?";
  return [element("details", {}, element("summary", {}, summary),
    element("p", { class: "soft" }, "How many times more likely each of your titles makes it:"),
    element("ul", { class: "why" }, ...shown.map((each) => reason(each, widest))))];
}

export function row(item, top, { onLike, onHide }) {
  const bar = drawing(
    ["rect", { width: `${100 * item.probability / top}%`, height: 7, rx: 3.5 }]);
  return element("li", {},
    element("span", { class: "rank" }, String(item.rank)),
    element("span", { class: "title" }, item.title),
    element("div", { class: "actions" },
      element("button", { type: "button", "aria-label": `Like ${item.title}`,
        onclick: () => onLike(item) }, "♥ Like"),
      element("button", { type: "button", "aria-label": `Hide ${item.title}`,
        onclick: () => onHide(item) }, "✕ Hide")),
    element("div", { class: "bar" }, bar, element("span", {}, percent(item.probability))),
    ...why(item));
}
