// What was chosen and hidden; kept over a reload.

const KEY = "genrec-state";
const EMPTY = { history: [], hidden: [], k: 10 };

function read() {
  try {
    return { ...EMPTY, ...JSON.parse(localStorage.getItem(KEY)) };
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
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
  } catch {
    // a private window may refuse; the page works without
  }
  for (const listener of listeners) listener(state);
}

const without = (items, item) => items.filter((each) => each.item_id !== item.item_id);

export const add = (item) =>
  change({ history: [...without(state.history, item), item], hidden: without(state.hidden, item) });
export const remove = (item) => change({ history: without(state.history, item) });
export const hide = (item) => change({ hidden: [...without(state.hidden, item), item] });
