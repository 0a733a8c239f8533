/** What the statements changed and which components are responsible, and how uncertain the answer is. */

import { bar, byId, counted, element, percent, signed } from "./dom.js";

const MOST_DOUBTS = 5;

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
  const items = pieces.map((piece) => element("li", {}, ...pieceParts(piece)));
  return element("div", { className: "reason" }, title, element("ul", {}, ...items), ...(scenes.length ? [scenesTable(label, scenes)] : []));
}

function pieceParts({ name, is_present: isPresent, alone, last }) {
  const verb = last < 0 ? "lowers" : "raises";
  const parts = [element("strong", {}, element("bdi", {}, name), isPresent ? " present" : " absent"), ` ${verb} the log-odds by ${signed(Math.abs(last)).slice(1)}`];
  // The two differ only with other pieces of evidence.
  if (Math.abs(alone - last) >= 0.005) parts.push(` given the rest; alone by ${signed(alone)}`);
  return parts;
}

const chance = (logOdds) => 1 / (1 + Math.exp(-logOdds));

function scenesTable(label, scenes) {
  const head = ["component", "weight before", "weight now", "P(label)", "share"];
  const cells = ({ name, weight_before: before, weight, probability, share }) => [
    element("td", { className: "text" }, element("bdi", {}, name)),
    ...[before, weight, probability, share].map((value) => element("td", {}, percent(value))),
  ];
  const header = element("tr", {}, ...head.map((name, place) => element("th", { scope: "col", className: place ? "" : "text" }, name)));
  const rows = scenes.map((scene) => element("tr", {}, ...cells(scene)));
  const table = element("table", {}, element("caption", {}, `Components of the mixture responsible for ${label}`), element("thead", {}, header), element("tbody", {}, ...rows));
  return element("div", { className: "scroll" }, table);
}

/** Show the entropy and, with members, what they disagree on. */
export function showUncertainty({ entropy_nats: entropy, entropy_standard_error: error, uncertainty }) {
  const alike = Math.exp(entropy);
  const about = alike < 1.05 ? "practically certain" : `as uncertain as a choice among ${alike < 1e6 ? counted(Number(alike.toPrecision(2)), "equally probable label set") : `${alike.toExponential(1)} equally probable label sets`}`;
  const given = error ? ` (± ${error.toPrecision(2)})` : "";
  const parts = [element("p", {}, `Entropy of the label sets: ${entropy.toFixed(2)} nats${given}, ${about}.`)];
  if (uncertainty) parts.push(...doubtParts(uncertainty));
  byId("uncertainty").replaceChildren(...parts);
}

function doubtParts({ members, total_nats: total, aleatoric_nats: within, epistemic_nats: between, labels }) {
  const sentence = `Over ${counted(members, "member")}, the labels have ${total.toFixed(2)} nats in total: ${within.toFixed(2)} within the members (the image is unclear) and ${between.toFixed(2)} between them (the members disagree).`;
  const worst = [...labels].sort((one, other) => other.epistemic_nats - one.epistemic_nats).slice(0, MOST_DOUBTS);
  const items = worst.map(({ label, lowest, highest, epistemic_nats: nats }) =>
    element("li", {}, element("bdi", {}, label), bar(highest), element("span", { className: "small" }, `${percent(lowest)} to ${percent(highest)}; ${nats.toFixed(3)} nats between members`)),
  );
  return [element("p", {}, sentence), element("h4", {}, "The members disagree most on"), element("ul", { className: "measures" }, ...items)];
}
