// The ranked list with probability bars, reasons, and buttons to like or hide an item.

import { drawing, element } from "./dom.js";

const REASONS = 4;

export function percent(share) {
  const value = 100 * share;
  return `${value >= 0.1 ? value.toFixed(2) : value.toPrecision(2)} %`;
}

// One reason with its bar. A positive effect extends to the right of `middle` (percent of the
// width), a negative one to its left.
function reason(each, widest, middle) {
  const up = each.effect >= 0;
  const share = (up ? 100 - middle : middle) * Math.min(1, Math.abs(each.effect) / widest);
  const bar = drawing(
    ["rect", { class: up ? "for" : "against", x: `${up ? middle : middle - share}%`, y: 0,
      width: `${share}%`, height: 8, rx: 2 }],
    ["line", { class: "mid", x1: `${middle}%`, x2: `${middle}%`, y1: 0, y2: 8 }]);
  const factor = Math.exp(each.effect);
  const text = factor >= 10 ? factor.toFixed(0) : factor.toFixed(2);
  return element("li", {}, element("span", {}, each.title), bar,
    element("span", { title: `${each.effect.toFixed(3)} nats` }, `× ${text}`));
}

function why(item) {
  const heard = item.words_effect ?? 0;
  const words = Math.abs(heard) > 0.005 ? [{ title: "your words", effect: heard }] : [];
  const shown = [...words, ...(item.because ?? []).slice(0, REASONS)];
  if (!shown.length) return [];
  const widest = Math.max(...shown.map((each) => Math.abs(each.effect)), 1e-9);
  const middle = shown.some((each) => each.effect < 0) ? 50 : 0;
  const best = shown.toSorted((a, b) => b.effect - a.effect).find((each) => each.effect > 0);
  const summary = best ? `Because of ${best.title}` : "Why?";
  return [element("details", {}, element("summary", {}, summary),
    element("p", { class: "soft" }, words.length ? "Your words and titles multiply the probability by:"
      : "Each of your titles multiplies the probability by:"),
    element("ul", { class: "why" }, ...shown.map((each) => reason(each, widest, middle))))];
}

export function row(item, top, { onLike, onHide }) {
  const bar = drawing(
    ["rect", { width: `${100 * item.probability / top}%`, height: 7, rx: 3.5 }]);
  return element("li", {},
    element("span", { class: "rank" }, String(item.rank)),
    element("span", { class: "title" }, item.title),
    element("div", { class: "actions" },
      element("button", { type: "button", "aria-label": `Like ${item.title}`,
        title: "Like", onclick: () => onLike(item) },
        "♥", element("span", {}, " Like")),
      element("button", { type: "button", "aria-label": `Hide ${item.title}`,
        title: "Hide", onclick: () => onHide(item) },
        "✕", element("span", {}, " Hide"))),
    element("div", { class: "bar" }, bar, element("span", {}, percent(item.probability))),
    ...why(item));
}
