/** What the statements changed and which components are responsible, and how uncertain the answer is. */

import { bar, byId, counted, element, percent, signed, table } from "./dom.js";

const MOST_DOUBTS = 5;
const SMALL = 0.005; // log-odds that two decimals do not show

/** Show the labels that the evidence changed most, with the pieces of evidence and the components. */
export function showReasons({ why, evidence }) {
  const isAsked = Object.keys(evidence).length > 0;
  const none = isAsked
    ? "What you stated changes no other label by more than one percent."
    : "State that a label is present or absent to see which others it changes, and why.";
  byId("reasons").replaceChildren(...(why.length ? why.map(reason) : [element("p", { className: "small" }, none)]));
}

function reason({ label, log_odds_before: before, log_odds: after, pieces, scenes }) {
  const title = element("h4", {}, element("bdi", {}, label), ` ${percent(chance(before))} → ${percent(chance(after))}`);
  const items = element("ul", {}, ...pieces.map((piece) => element("li", {}, ...pieceParts(piece))));
  return element("div", { className: "reason" }, title, items, ...(scenes.length ? [scenesTable(label, scenes)] : []));
}

function pieceParts({ name, is_present: isPresent, alone, last }) {
  const stated = element("strong", {}, element("bdi", {}, name), isPresent ? " present" : " absent");
  const by = `${last < 0 ? "lowers" : "raises"} the log-odds by ${Math.abs(last).toFixed(2)}`;
  // The two differ only with other pieces of evidence.
  const rest = Math.abs(alone - last) < SMALL ? "" : ` given the rest (alone: ${signed(alone)})`;
  return [stated, ` ${Math.abs(last) < SMALL ? "hardly changes the log-odds" : by}${rest}.`];
}

const chance = (logOdds) => 1 / (1 + Math.exp(-logOdds));

function scenesTable(label, scenes) {
  const head = ["component", "weight, before → now", "P(label)", "share"];
  const rows = scenes.map(({ name, weight_before: before, weight, probability, share }) => [
    name,
    `${percent(before)} → ${percent(weight)}`,
    percent(probability),
    percent(share),
  ]);
  return table(`Components of the mixture responsible for ${label}`, head, rows);
}

/** Show the entropy and, with members, what they disagree on. */
export function showUncertainty({ entropy_nats: entropy, entropy_standard_error: error, uncertainty }) {
  const estimated = error ? ` (± ${error.toPrecision(2)})` : "";
  const sentence = `Entropy of the label sets: ${entropy.toFixed(2)} nats${estimated}, ${choiceOf(entropy)}.`;
  byId("uncertainty").replaceChildren(element("p", {}, sentence), ...(uncertainty ? doubtParts(uncertainty) : []));
}

/** Return an entropy as the number of equally probable label sets that have it. */
function choiceOf(entropy) {
  const alike = Math.exp(entropy);
  if (alike < 1.05) return "practically certain";
  const number = alike < 1e6 ? Number(alike.toPrecision(2)).toLocaleString("en") : alike.toExponential(1);
  return `as uncertain as a choice among ${number} equally probable label sets`;
}

function doubtParts({ members, total_nats: total, aleatoric_nats: within, epistemic_nats: between, labels }) {
  const sum = `Over ${counted(members, "member")}, the labels have ${total.toFixed(2)} nats in total`;
  const parts = `${within.toFixed(2)} within the members (the image is unclear), ${between.toFixed(2)} between them (they disagree)`;
  const worst = [...labels].sort((one, other) => other.epistemic_nats - one.epistemic_nats).slice(0, MOST_DOUBTS);
  const list = element("ul", { className: "measures" }, ...worst.map(doubtItem));
  return [element("p", {}, `${sum}: ${parts}.`), element("h4", {}, "The members disagree most on"), list];
}

function doubtItem({ label, lowest, highest, epistemic_nats: nats }) {
  const said = `${percent(lowest)} to ${percent(highest)}; ${nats.toFixed(3)} nats between members`;
  return element("li", {}, element("bdi", {}, label), bar(highest, lowest), element("span", { className: "small" }, said));
}
