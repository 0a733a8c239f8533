/** The list of all labels: a row each, with its bar, what is stated about it, and marks for the threshold and the past. */

import { byId, counted, element, isStill, percent, spoken } from "./dom.js";

const FEW = 25; // rows before "show all"
const MOST_GLIDING = 100; // rows: to measure where more of them are takes longer than it helps
const NEXT = new Map([[undefined, true], [true, false], [false, null]]); // what a click states
const STATED = new Map([[true, "stated present"], [false, "stated absent"], [undefined, ""]]);
const SIGN = new Map([[true, "+"], [false, "−"], [undefined, ""]]);

let session = null;
let rows = new Map(); // label -> its row, once it was shown
let views = new Map(); // label -> what its row shows of the last answer
let isWhole = false; // all rows are shown

/** Connect the list to a session; `explain(label)` shows a label's map. */
export function listenToBars(of, explain) {
  session = of;
  byId("filter").addEventListener("input", arrange);
  document.querySelectorAll("[name=order]").forEach((one) => one.addEventListener("change", arrange));
  byId("all").addEventListener("click", () => {
    isWhole = !isWhole;
    arrange();
  });
  byId("bars").addEventListener("keydown", walk);
  byId("bars").addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    const { label } = button.closest("li").dataset;
    if (button.className === "map") explain(label);
    else session.state(label, NEXT.get(session.evidence.get(label)));
  });
}

/** Begin with the labels of another bundle. */
export function clearBars() {
  rows = new Map();
  isWhole = false;
  byId("filter").value = "";
  byId("bars").replaceChildren();
}

/** Show the session's answer. */
export function showBars() {
  const thresholds = thresholdsOf(session.answer.rule, session.rules);
  views = viewsOf(session, thresholds);
  showKey(session.answer, thresholds);
  arrange();
}

/** Marginals without the evidence are shown for all labels where this image was answered without any. */
function viewsOf({ answer, labels, evidence, before }, thresholds) {
  const ranges = new Map((answer.uncertainty?.labels ?? []).map((one) => [one.label, [one.lowest, one.highest]]));
  const listed = new Map(answer.labels.map((one) => [one.label, one.without_evidence]));
  const chosen = new Set(answer.label_set);
  const past = (label, column) => (evidence.size ? before?.[column] ?? listed.get(label) : null) ?? null;
  const view = (label, column) => ({
    marginal: answer.marginals[column],
    before: past(label, column),
    range: ranges.get(label) ?? null,
    threshold: thresholds?.(column) ?? null,
    stated: evidence.get(label),
    isChosen: chosen.has(label),
  });
  return new Map(labels.map((label, column) => [label, view(label, column)]));
}

/** Return the threshold of a column as a function, or null for a rule that does not compare marginals with any. */
function thresholdsOf(rule, rules) {
  if (rule !== "" && Number.isFinite(Number(rule))) return () => Number(rule);
  const known = rules.find(({ name }) => name === rule)?.thresholds;
  return Array.isArray(known) ? (column) => known[column] : typeof known === "number" ? () => known : null;
}

function makeRow(label) {
  const sign = element("span", { className: "sign", aria: { hidden: true } });
  const state = element("button", { className: "state" }, sign, element("bdi", { className: "name" }, label), spoken(""));
  const parts = ["fill", "range", "ghost", "threshold"].map((className) => element("span", { className }));
  const track = element("span", { className: "track", aria: { hidden: true } }, ...parts);
  const value = element("span", { className: "value" });
  const map = element("button", { className: "map", title: "Where in the image", aria: { label: `Why ${label}` } }, "why");
  return element("li", { data: { label } }, state, track, value, map);
}

function showRow(row, { marginal, before, range, threshold, stated, isChosen }) {
  const [state, track, value] = row.children;
  const [fill, spread, ghost, line] = track.children;
  row.className = [isChosen ? "chosen" : "", stated === undefined ? "" : stated ? "present" : "absent"].join(" ").trim();
  state.firstChild.textContent = SIGN.get(stated);
  state.lastChild.textContent = stated === undefined ? "" : `, ${STATED.get(stated)}`;
  fill.style.transform = `scaleX(${marginal})`;
  const hasMoved = before !== null && percent(before) !== percent(marginal);
  place(ghost, stated === undefined && hasMoved ? before : null);
  place(line, threshold);
  place(spread, range?.[0] ?? null);
  if (range) spread.style.width = `${100 * (range[1] - range[0])}%`;
  value.replaceChildren(percent(stated === undefined ? marginal : Number(stated)), spoken(said(before, isChosen)));
  value.title = String(marginal);
}

function said(before, isChosen) {
  const parts = [isChosen ? "chosen" : "", before === null ? "" : `${percent(before)} without what you stated`];
  return parts.filter(Boolean).map((part) => `, ${part}`).join("");
}

/** Put a mark at a value from 0 to 1; hide it for null. */
function place(mark, value) {
  mark.hidden = value === null;
  if (!mark.hidden) mark.style.left = `${100 * Math.min(value, 1)}%`;
}

function showKey(answer, thresholds) {
  const shown = { ghost: session.evidence.size > 0, threshold: Boolean(thresholds), range: Boolean(answer.uncertainty) };
  for (const item of byId("bars-key").children) item.hidden = shown[item.dataset.key] === false;
}

/** Show the rows that the filter and the limit leave, in order, what is stated first. Only these are made and filled. */
function arrange() {
  const found = sought(byId("filter").value);
  const shown = isWhole ? found : found.slice(0, FEW);
  const all = byId("all");
  byId("bars-none").hidden = found.length > 0;
  byId("bars").classList.toggle("whole", isWhole); // rows out of view are then not laid out
  all.hidden = found.length <= FEW;
  all.textContent = isWhole ? `Show the first ${FEW}` : `Show all ${counted(found.length, "label")}`;
  moveTo(shown.map(filledRow));
}

function filledRow(label) {
  if (!rows.has(label)) rows.set(label, makeRow(label));
  const row = rows.get(label);
  showRow(row, views.get(label));
  return row;
}

function sought(text) {
  const part = text.trim().toLocaleLowerCase();
  const order = document.querySelector("[name=order]:checked").value;
  const byProbability = (one, other) => views.get(other).marginal - views.get(one).marginal;
  const compare = order === "name" ? new Intl.Collator("en", { numeric: true }).compare : byProbability;
  const free = session.labels.filter((label) => !session.evidence.has(label)).sort(compare);
  return [...session.evidence.keys(), ...free].filter((label) => label.toLocaleLowerCase().includes(part));
}

/** Make `wanted` the rows of the list, without moving the focused one in the document: it would lose the focus. */
function moveTo(wanted) {
  const list = byId("bars");
  const before = isStill() || wanted.length > MOST_GLIDING ? new Map() : places(list.children);
  const focused = wanted.find((row) => row.contains(document.activeElement));
  const kept = new Set(wanted);
  [...list.children].filter((row) => !kept.has(row)).forEach((row) => row.remove());
  const at = focused ? wanted.indexOf(focused) : -1;
  wanted.slice(0, Math.max(at, 0)).forEach((row) => list.insertBefore(row, focused));
  list.append(...wanted.slice(at + 1));
  glide(list.children, before);
}

/** Return the vertical places of the rows that are in view. */
function places(list) {
  const seen = new Map();
  for (const row of list) {
    const { top, bottom } = row.getBoundingClientRect();
    if (bottom > 0 && top < innerHeight) seen.set(row, top);
  }
  return seen;
}

/** Let the rows that were in view glide from where they were. */
function glide(list, before) {
  if (!before.size) return;
  for (const [row, top] of places(list)) {
    const by = (before.get(row) ?? top) - top;
    if (by) row.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], { duration: 350, easing: "ease" });
  }
}

/** Arrow keys, Home and End walk over the rows in the column of the focused button. */
function walk(event) {
  const row = event.target.closest("li");
  const list = [...byId("bars").children];
  const to = { ArrowDown: list.indexOf(row) + 1, ArrowUp: list.indexOf(row) - 1, Home: 0, End: list.length - 1 }[event.key];
  const button = list[to]?.querySelector(`button.${event.target.className}`);
  if (!button) return;
  event.preventDefault();
  button.focus();
}
