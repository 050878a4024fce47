// A text field with suggestions, after the ARIA combobox pattern.

import { element } from "./dom.js";

const PAUSE = 90; // milliseconds after the last key stroke before a request is sent

export function combobox(input, list, { find, onPick, onBackspace, onError }) {
  let items = [];
  let active = -1;
  let timer;
  let asking;
  let stale = false; // whether the text has changed since the options were requested

  function close() {
    items = [];
    active = -1;
    list.hidden = true;
    list.replaceChildren();
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function show(found, instead = "No matching titles") {
    items = found;
    active = found.length ? 0 : -1;
    const options = found.map((item, place) =>
      element("li", { role: "option", id: `option-${place}`, "aria-selected": "false",
        onmousedown: (event) => { event.preventDefault(); pick(place); } },
        item.title, ...(item.detail ? [element("small", {}, item.detail)] : [])));
    const none = element("li", { class: "none", role: "option", "aria-disabled": "true" },
      instead);
    list.replaceChildren(...(options.length ? options : [none]));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark();
  }

  function mark() {
    [...list.children].forEach((option, place) =>
      option.setAttribute("aria-selected", String(place === active)));
    if (active < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", `option-${active}`);
    list.children[active].scrollIntoView({ block: "nearest" });
  }

  function pick(place) {
    const item = items[place];
    if (!item) return;
    input.value = "";
    close();
    onPick(item);
  }

  async function ask() {
    clearTimeout(timer);
    asking?.abort();
    const query = input.value.trim();
    if (!query) return done(close);
    asking = new AbortController();
    try {
      const { items: found } = await find(query, asking.signal);
      done(() => document.activeElement === input && show(found));
    } catch (error) {
      if (error.name === "AbortError") return;
      done(() => show([], error.message));
      onError(error);
    }
  }

  function done(showing) {
    stale = false;
    showing();
  }

  async function enter() {
    if (stale) await ask();
    if (!stale) pick(active); // if the text has changed meanwhile, the options do not match it
  }

  const keys = {
    ArrowDown: () => { active = Math.min(active + 1, items.length - 1); mark(); },
    ArrowUp: () => { active = Math.max(active - 1, 0); mark(); },
    Home: () => { active = 0; mark(); },
    End: () => { active = items.length - 1; mark(); },
  };

  input.addEventListener("input", () => {
    stale = true;
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Backspace" && !input.value) return onBackspace();
    if (event.key === "Escape") return list.hidden ? (input.value = "") : close();
    if (event.key === "Enter") return enter();
    if (list.hidden && event.key === "ArrowDown") return ask();
    if (list.hidden || !items.length || !keys[event.key]) return undefined;
    event.preventDefault();
    return keys[event.key]();
  });
  input.addEventListener("blur", close);
}
