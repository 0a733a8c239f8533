/** The chosen set, the rule that chose it with its guarantee, and the evidence as chips. */

import { byId, element } from "./dom.js";

const OWN = "a threshold"; // the entry of the list of rules that shows a box for a number

let session = null;

export function listenToRule(of) {
  session = of;
  byId("rule").addEventListener("change", ({ target }) => {
    showThreshold();
    session.choose(target.value === OWN ? byId("threshold").value : target.value);
  });
  byId("threshold").addEventListener("change", ({ target }) => {
    if (target.reportValidity() && target.value !== "") session.choose(target.value);
  });
  byId("clear").addEventListener("click", () => {
    session.forget();
    byId("filter").focus(); // the button is about to disappear
  });
}

export function listRules() {
  const names = [...session.rules.map(({ name }) => name), OWN];
  byId("rule").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
}

/** Show the chosen labels, the guarantee and the notes of the session's answer. */
export function showChosen() {
  const { answer } = session;
  const items = answer.label_set.map((label) => chip(label, session.evidence.has(label) ? "known" : "hit"));
  byId("chosen").replaceChildren(...(items.length ? items : [element("li", { className: "small" }, "no label")]));
  const isListed = session.rules.some(({ name }) => name === answer.rule);
  byId("rule").value = isListed ? answer.rule : OWN;
  const threshold = byId("threshold");
  if (!isListed && threshold !== document.activeElement) threshold.value = answer.rule; // not while it is being written
  showThreshold();
  byId("guarantee").textContent = guaranteeOf(answer);
  byId("notes").replaceChildren(...answer.notes.map((note) => element("li", {}, sentence(note))));
}

function guaranteeOf({ rule, guarantee }) {
  if (guarantee) return `Guarantee: this rule ${guarantee.replace(/\.?$/, ".")}`;
  return `${rule} makes no guarantee here.`;
}

const sentence = (note) => `${note.charAt(0).toUpperCase()}${note.slice(1).replace(/\.?$/, ".")}`;

function showThreshold() {
  const isOwn = byId("rule").value === OWN;
  document.querySelectorAll(".own").forEach((part) => (part.hidden = !isOwn));
}

/** Show what is stated, with a button to take each statement back. */
export function showEvidence() {
  const items = [...session.evidence].map(([label, isPresent]) => {
    const item = chip(`${label}: ${isPresent ? "present" : "absent"}`, isPresent ? "present" : "absent");
    const forget = () => session.state(label, null);
    item.append(element("button", { className: "remove", aria: { label: `Take back ${label}` }, on: { click: forget } }, "×"));
    return item;
  });
  const list = byId("evidence");
  const hadFocus = list.contains(document.activeElement);
  list.replaceChildren(...items);
  byId("evidence-part").hidden = !items.length;
  if (hadFocus) (list.querySelector("button") ?? byId("filter")).focus();
}

export const chip = (text, kind) => element("li", { className: `chip ${kind}` }, element("bdi", {}, text));
