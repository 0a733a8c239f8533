/** The box for queries: asks, shows an error under its place, and lists the answers. */

import { completeLabels, written } from "./complete.js";
import { bar, byId, element, percent } from "./dom.js";

const MOST_SETS = 5;

let session = null;

export function listenToQueries(of) {
  session = of;
  const input = byId("query");
  completeLabels(input, byId("query-options"), () => session.labels);
  input.addEventListener("input", () => showFault(null));
  byId("query-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(input.value);
  });
}

/** Write the questions that the page shows as examples with the first labels of the bundle. */
export function showExamples() {
  const names = session.labels.map(written);
  document.querySelectorAll("[data-of-labels]").forEach((example) => {
    const text = example.dataset.ofLabels.replace(/\{(\d)\}/g, (_, place) => names[place % names.length]);
    example.replaceChildren(element("bdi", {}, text));
  });
}

async function ask(text) {
  if (!session.answer) return;
  const button = document.querySelector("#query-form button");
  button.disabled = true;
  try {
    await session.add(text);
    byId("query").value = "";
    showFault(null);
  } catch (fault) {
    showFault(fault, text);
  } finally {
    button.disabled = false;
  }
}

/** Show an error: its message, and where the server names a place, the query with carets under that place. */
function showFault(fault, text) {
  const input = byId("query");
  input.setAttribute("aria-invalid", String(Boolean(fault)));
  byId("query-fault").replaceChildren(...(fault ? faultParts(fault, text) : []));
  if (fault?.at == null) return;
  const start = [...text].slice(0, fault.at).join("").length; // Python counts characters, JavaScript UTF-16 units
  input.focus();
  input.setSelectionRange(start, start + Math.max(1, markedPart(fault, text).length));
}

function faultParts(fault, text) {
  const [message] = fault.message.split("\n");
  const sentence = element("p", { className: "fault" }, message.charAt(0).toUpperCase() + message.slice(1));
  if (fault.at == null) return [sentence];
  const part = markedPart(fault, text);
  const before = [...text].slice(0, fault.at).join("");
  const mark = element("mark", {}, part || " ");
  return [element("p", { className: "asked" }, before, mark, text.slice(before.length + part.length)), sentence];
}

/** Return the part of the query that the message has carets under; to the end if it has none. */
function markedPart(fault, text) {
  const carets = fault.message.split("\n").at(-1).match(/^ *(\^+)$/)?.[1].length;
  return [...text].slice(fault.at, carets && fault.at + carets).join("");
}

/** List the answers, each with a button that removes it. */
export function showAnswers() {
  byId("answers").replaceChildren(...session.answer.answers.map(answerItem));
  showSuggestions();
}

function answerItem({ query, probability, standard_error: error, fault }) {
  const drop = () => {
    session.drop(query);
    byId("query").focus();
  };
  const remove = element("button", { className: "remove", aria: { label: `Remove ${query}` }, on: { click: drop } }, "×");
  const asked = element("code", {}, query);
  if (probability === null) {
    const why = fault?.split("\n")[0] ?? "no answer: the condition has probability 0, or too small a one to estimate";
    return element("li", { className: "unanswered" }, asked, remove, element("span", { className: "small" }, why));
  }
  const value = element("strong", { title: String(probability) }, percent(probability, 2));
  if (error) value.append(element("span", { className: "small" }, ` ± ${percent(error, 2)}`));
  return element("li", {}, asked, remove, bar(probability), value);
}

/** Offer questions about the most probable labels; one click asks them. */
function showSuggestions() {
  const free = session.answer.labels.map(({ label }) => label).filter((label) => !session.evidence.has(label));
  const [one, other] = free.slice(0, 2).map(written);
  const texts = other ? [`P(${one} & ${other})`, `P(${one} | !${other})`, "P(count >= 2)"] : ["P(count >= 1)"];
  const asked = new Set(session.queries);
  const button = (text) => element("button", { type: "button", className: "chip", on: { click: () => ask(text) } }, text);
  const items = texts.filter((text) => !asked.has(text)).map((text) => element("li", {}, button(text)));
  byId("suggestions").replaceChildren(...items);
}

/** Show the most probable label sets. */
export function showSets() {
  const { top_sets: sets } = session.answer;
  const items = sets?.slice(0, MOST_SETS).map(({ labels, probability }) => {
    const text = element("span", { className: "set" }, ...(labels.length ? namesOf(labels) : ["no label"]));
    return element("li", {}, text, bar(probability), element("strong", {}, percent(probability)));
  });
  const none = "They cannot be found exactly; the notes explain why.";
  byId("sets").replaceChildren(...(items ?? [element("li", { className: "small" }, none)]));
}

function namesOf(names) {
  const parts = names.flatMap((name) => [", ", element("bdi", {}, name)]);
  return parts.slice(1);
}
