// The chosen and hidden titles, stored across page loads.

const KEY = "genrec-state";
const EMPTY = { history: [], hidden: [], words: "", k: 10, data: null };

export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // private windows may refuse storage; the page works without it
  }
}

export function keep(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch {
    // as above
  }
}

const isItem = (item) => typeof item?.item_id === "string" && typeof item.title === "string";
const isWhole = ({ history, hidden, words, k }) =>
  [history, hidden].every((items) => Array.isArray(items) && items.every(isItem)) && k > 0
  && typeof words === "string";

function read() {
  try {
    const kept = { ...EMPTY, ...JSON.parse(recall(KEY)) };
    return isWhole(kept) ? kept : { ...EMPTY };
  } catch {
    return { ...EMPTY };
  }
}

let state = read();
const listeners = [];

export const current = () => state;
export const onChange = (listener) => listeners.push(listener);

export function change(part) {
  state = { ...state, ...part };
  keep(KEY, JSON.stringify(state));
  for (const listener of listeners) listener(state);
}

const without = (items, item) => items.filter((each) => each.item_id !== item.item_id);

export const add = (item) =>
  change({ history: [...without(state.history, item), item], hidden: without(state.hidden, item) });
export const remove = (item) => change({ history: without(state.history, item) });
export const hide = (item) => change({ hidden: [...without(state.hidden, item), item] });

// Clears the chosen titles if the service now serves another data set.
export function belongTo(data) {
  if (state.data === data) return;
  if (state.data !== null) return change({ ...EMPTY, k: state.k, data });
  state = { ...state, data };
  return keep(KEY, JSON.stringify(state));
}
