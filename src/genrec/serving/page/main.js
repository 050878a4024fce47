// Connects the parts of the page: the state, the request and the list.

import { findItems, hasKey, recommend, runFacts, useKey } from "./api.js";
import { combobox } from "./combobox.js";
import { element } from "./dom.js";
import { row } from "./list.js";
import * as state from "./state.js";

const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };
const PAUSE = 400; // milliseconds after the last letter before the words are sent
let asking;
let typing;

function showChips({ history, hidden }) {
  $("history").replaceChildren(...history.map((item) => element("li", {},
    element("span", {}, item.title),
    element("button", { type: "button", "aria-label": `Remove ${item.title}`,
      onclick: () => { state.remove(item); $("query").focus(); } }, "✕"))));
  $("clear").hidden = !history.length && !state.current().words;
  $("unhide").hidden = !hidden.length;
  $("unhide").textContent = `Show hidden titles again (${hidden.length})`;
}

function showMessage(text, { bad = false } = {}) {
  const message = $("message");
  message.className = bad ? "bad" : "";
  message.replaceChildren(element("div", { role: bad ? "alert" : undefined }, text));
  if (bad) {
    const again = async () => { await refresh(); toList(); };
    message.append(element("button", { type: "button", onclick: again }, "Try again"));
  }
  message.hidden = false;
}

const toList = () => $("list").focus({ preventScroll: true });

function showWaiting() {
  $("message").hidden = true;
  $("list").setAttribute("aria-busy", "true");
  if ($("list").children.length) return $("list").classList.add("stale");
  return $("list").replaceChildren(
    ...Array.from({ length: 5 }, () => element("div", { class: "skeleton" })));
}

function showList({ items, known_words: known, related_words: related }, history, words) {
  endWaiting();
  const top = Math.max(...items.map((item) => item.probability), 1e-12);
  const open = new Set([...$("list").querySelectorAll("li:has(> details[open]) > .title")]
    .map((title) => title.textContent));
  $("list").replaceChildren(...items.map((item) => row(item, top, {
    onLike: (liked) => { state.add(pair(liked)); say(`${liked.title} added`); toList(); },
    onHide: (gone) => { state.hide(pair(gone)); say(`${gone.title} hidden`); toList(); },
  })));
  for (const each of $("list").children) {
    const details = each.querySelector("details");
    if (details) details.open = open.has(each.querySelector(".title").textContent);
  }
  $("message").hidden = items.length > 0;
  if (!items.length) showMessage("There are no more items to recommend.");
  const start = words ? "For this mood" : "Popular to start with";
  $("list-heading").textContent = history.length ? "Recommended next" : start;
  const note = words ? wordsNote(known, Object.entries(related)) : "";
  $("words-note").hidden = !note;
  $("words-note").textContent = note;
  say(`${items.length} recommendations. ${note}`);
}

function wordsNote(known, related) {
  if (!known.length) return "No title or category is like these words.";
  if (!related.length) return "";
  return `Understood: ${related.map(([word, near]) => `${word} as ${near}`).join(", ")}.`;
}

const pair = ({ item_id, title }) => ({ item_id, title });
const byId = ({ item_id }) => ({ item_id });

function endWaiting() {
  $("list").classList.remove("stale");
  $("list").setAttribute("aria-busy", "false");
}

function showError(error) {
  endWaiting();
  $("list").replaceChildren();
  const locked = error.status === 401;
  $("key-form").hidden = !locked;
  $("message").hidden = locked;
  if (locked) return hasKey() ? refuseKey("The service does not accept this key.") : undefined;
  return showMessage(error.message, { bad: true });
}

function refuseKey(text) {
  $("key-trouble").textContent = text;
  $("key").focus();
}

async function refresh() {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const { history, hidden, k } = state.current();
  const words = state.current().words.trim();
  showWaiting();
  const body = { k, history: history.map(byId),
    block: hidden.map(byId), explain: history.length > 0 || words !== "" };
  if (words) body.words = words;
  try {
    const answer = await recommend(body, mine.signal);
    if (asking !== mine) return;
    $("key-form").hidden = true;
    showList(answer, history, words);
  } catch (error) {
    if (error.name !== "AbortError" && asking === mine) showError(error);
  }
}

async function showRun() {
  try {
    const facts = await runFacts();
    $("run").textContent = facts.data?.name ? `on ${facts.data.name}` : "";
    $("mood").hidden = !facts.words; // a run without a prior cannot hear words
    $("facts").textContent = `${facts.items.toLocaleString("en")} items ·`;
    state.belongTo(facts.data?.fingerprint ?? "");
  } catch {
    $("facts").textContent = "";
  }
}

async function start() {
  await showRun(); // first, because it clears stored titles that belong to other data
  await refresh();
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  $("theme").textContent = dark ? "☀" : "☾";
  return dark;
}

setTheme(state.recall("genrec-theme"));
$("theme").addEventListener("click", () => {
  const chosen = setTheme(document.documentElement.dataset.theme) ? "light" : "dark";
  state.keep("genrec-theme", chosen);
  setTheme(chosen);
});
combobox($("query"), $("options"), {
  find: findItems,
  onPick: (item) => { state.add(item); say(`${item.title} added`); },
  onBackspace: () => { const last = state.current().history.at(-1); if (last) state.remove(last); },
  onError: (error) => (error.status === 401 ? showError(error) : say(error.message)),
});
$("count").value = String(state.current().k);
$("count").addEventListener("change", (event) => state.change({ k: Number(event.target.value) }));
$("clear").addEventListener("click", () => {
  $("words").value = "";
  state.change({ history: [], words: "" });
  $("query").focus();
});
const hear = () => {
  clearTimeout(typing);
  if ($("words").value !== state.current().words) state.change({ words: $("words").value });
};
$("words").value = state.current().words;
$("words").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(hear, PAUSE); });
$("words").addEventListener("change", hear);
$("words").addEventListener("keydown", (event) => { if (event.key === "Enter") hear(); });
$("unhide").addEventListener("click", () => state.change({ hidden: [] }));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const fits = useKey($("key").value.trim());
  $("key").value = "";
  if (fits) start();
  else refuseKey("A key consists of Latin letters, digits and punctuation, without spaces.");
});
state.onChange(showChips);
state.onChange(refresh);
showChips(state.current());
start();
