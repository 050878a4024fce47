// Puts the page together: state → request → list.

import { findItems, recommend, runFacts, useKey } from "./api.js";
import { combobox } from "./combobox.js";
import { element } from "./dom.js";
import { row } from "./list.js";
import * as state from "./state.js";

const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };
let asking;

function showChips({ history, hidden }) {
  $("history").replaceChildren(...history.map((item) => element("li", {},
    element("span", {}, item.title),
    element("button", { type: "button", "aria-label": `Remove ${item.title}`,
      onclick: () => { state.remove(item); $("query").focus(); } }, "✕"))));
  $("clear").hidden = !history.length;
  $("unhide").hidden = !hidden.length;
  $("unhide").textContent = `Show ${hidden.length} hidden again`;
}

function showMessage(text, { bad = false, retry = false } = {}) {
  const message = $("message");
  message.className = bad ? "bad" : "";
  message.replaceChildren(element("div", {}, text));
  if (retry) {
    message.append(element("button", { type: "button", onclick: refresh }, "Try again"));
  }
  message.hidden = false;
}

function showWaiting() {
  $("message").hidden = true;
  if ($("list").children.length) return $("list").classList.add("stale");
  return $("list").replaceChildren(
    ...Array.from({ length: 5 }, () => element("div", { class: "skeleton" })));
}

function showList({ items }, history) {
  $("list").classList.remove("stale");
  const top = Math.max(...items.map((item) => item.probability), 1e-12);
  $("list").replaceChildren(...items.map((item) => row(item, top, {
    onLike: (liked) => { state.add(pair(liked)); say(`${liked.title} added`); $("list").focus(); },
    onHide: (gone) => { state.hide(pair(gone)); say(`${gone.title} hidden`); $("list").focus(); },
  })));
  $("message").hidden = items.length > 0;
  if (!items.length) showMessage("Nothing is left to recommend.");
  $("list-heading").textContent = history.length ? "Recommended next" : "Popular to start with";
  say(`${items.length} recommendations`);
}

const pair = ({ item_id, title }) => ({ item_id, title });

function showError(error) {
  $("list").classList.remove("stale");
  $("list").replaceChildren();
  $("key-form").hidden = error.status !== 401;
  if (error.status === 401) return $("message").setAttribute("hidden", "");
  return showMessage(error.message, { bad: true, retry: true });
}

async function refresh() {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const { history, hidden, k } = state.current();
  showWaiting();
  const body = { k, history: history.map((item) => item.item_id),
    block: hidden.map((item) => item.item_id), explain: history.length > 0 };
  try {
    const answer = await recommend(body, mine.signal);
    if (asking !== mine) return;
    $("key-form").hidden = true;
    showList(answer, history);
  } catch (error) {
    if (error.name !== "AbortError" && asking === mine) showError(error);
  }
}

async function showRun() {
  try {
    const facts = await runFacts();
    $("run").textContent = facts.data?.name ? `on ${facts.data.name}` : "";
    const prior = facts.prior === "none" ? "no prior" : `prior ${facts.prior}`;
    $("facts").textContent = `${facts.items.toLocaleString("en")} items · ${prior} ·`;
  } catch {
    $("facts").textContent = "";
  }
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  $("theme").textContent = dark ? "☀" : "☾";
  return dark;
}

setTheme(localStorage.getItem("genrec-theme"));
$("theme").addEventListener("click", () => {
  const chosen = setTheme(document.documentElement.dataset.theme) ? "light" : "dark";
  localStorage.setItem("genrec-theme", chosen);
  setTheme(chosen);
});
combobox($("query"), $("options"), {
  find: findItems,
  onPick: (item) => { state.add(item); say(`${item.title} added`); },
  onBackspace: () => { const last = state.current().history.at(-1); if (last) state.remove(last); },
  onError: showError,
});
$("count").value = String(state.current().k);
$("count").addEventListener("change", (event) => state.change({ k: Number(event.target.value) }));
$("clear").addEventListener("click", () => { state.change({ history: [] }); $("query").focus(); });
$("unhide").addEventListener("click", () => state.change({ hidden: [] }));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value.trim());
  $("key").value = "";
  showRun();
  refresh();
});
state.onChange(showChips);
state.onChange(refresh);
showChips(state.current());
showRun();
refresh();
