/** Completes names of labels in a text box: a combobox with a list, as the ARIA practices describe it. */

import { element } from "./dom.js";

const MOST = 8;
const SYMBOLS = /[&|!(){},<>="]/; // these end a name that is not in quotes
const KEYWORDS = ["count", "exactly"];

/** Return a label's name as a query has it: in quotes if it needs them. */
export function written(name) {
  const isPlain = name !== "" && !KEYWORDS.includes(name) && !SYMBOLS.test(name) && name === name.trim().replace(/\s+/g, " ");
  return isPlain ? name : `"${name.replaceAll('"', '""')}"`;
}

/** Return where the name that is being written at `caret` starts, and its text so far. */
export function nameAt(text, caret) {
  const before = text.slice(0, caret);
  const quotes = [...before.matchAll(/"/g)];
  if (quotes.length % 2) {
    const start = quotes.at(-1).index;
    return { start, part: before.slice(start + 1) };
  }
  const [part] = before.match(/[^&|!(){},<>="]*$/);
  const start = before.length - part.trimStart().length;
  return { start, part: part.trimStart() };
}

/** Return the labels to offer for a part of a name: those that start with it, then those with a word that does, then others. */
export function matching(labels, part) {
  const wanted = part.toLocaleLowerCase();
  const quality = (label) => {
    const name = label.toLocaleLowerCase();
    const place = name.indexOf(wanted);
    return place === 0 ? 0 : place < 0 ? null : /\s/.test(name[place - 1]) ? 1 : 2;
  };
  const rated = labels.map((label) => [quality(label), label]).filter(([rate]) => rate !== null);
  return rated.sort(([one], [other]) => one - other).slice(0, MOST).map(([, label]) => label);
}

/** Connect a box and its list; `labels()` returns the names. */
export function completeLabels(input, list, labels) {
  let offered = [];
  let active = -1;

  const close = () => {
    offered = [];
    active = -1;
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const open = () => {
    const { part } = nameAt(input.value, input.selectionStart);
    const found = part === "" || part === "P" ? [] : matching(labels(), part);
    if (!found.length || (found.length === 1 && found[0] === part)) return close();
    offered = found;
    list.replaceChildren(...found.map((label, place) => optionOf(label, place, accept)));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    point(-1);
  };
  const point = (to) => {
    active = to;
    [...list.children].forEach((one, place) => one.setAttribute("aria-selected", String(place === to)));
    if (to < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", list.children[to].id);
    list.children[to].scrollIntoView({ block: "nearest" });
  };
  const accept = (place) => {
    insert(input, offered[place]);
    close();
  };

  input.addEventListener("input", open);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const isOpen = offered.length > 0;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && !isOpen) open();
    else if (step) point((active + step + offered.length + (active < 0 && step < 0 ? 1 : 0)) % offered.length);
    else if (event.key === "Escape" && isOpen) close();
    else if (event.key === "Enter" && active >= 0) accept(active);
    else if (event.key === "Tab" && isOpen && active >= 0) accept(active);
    else return;
    event.preventDefault();
  });
}

function optionOf(label, place, accept) {
  // The box keeps the focus: a press of the mouse would take it, and close the list before the click.
  const on = { mousedown: (event) => event.preventDefault(), click: () => accept(place) };
  const option = element("li", { id: `query-option-${place}`, on, aria: { selected: "false" } }, element("bdi", {}, label));
  option.setAttribute("role", "option");
  return option;
}

/** Put a label in place of the part that was written; a query that has not begun is begun, and closed behind the caret. */
function insert(input, label) {
  const { start } = nameAt(input.value, input.selectionStart);
  const before = input.value.slice(0, start);
  const rest = input.value.slice(input.selectionStart);
  const hasBegun = before.trim() !== "";
  const head = (hasBegun ? before : "P(") + written(label);
  input.value = head + (hasBegun ? rest : ")");
  input.setSelectionRange(head.length, head.length);
}
