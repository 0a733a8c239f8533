/** The model: its name and labels at the top, its card at the foot, and a choice if the server has several bundles. */

import { getCard } from "./api.js";
import { byId, counted, element } from "./dom.js";

const UNNAMED = "unnamed"; // in the card of a bundle that records no run
const HIDDEN = new Set(["bundles", "format", "version"]);
const MOST_ITEMS = 12; // of a list in the card
const DIGITS = 4;

export function listenToBundles(session) {
  byId("bundle").addEventListener("change", ({ target }) => session.open(target.value));
}

/** Show what the server has to tell about the session's bundle; the only one goes by the name of its run. */
export async function showModel(session) {
  const card = await getCard(session.bundle).catch(() => null);
  const bundles = card?.bundles ?? [session.bundle];
  byId("bundle").replaceChildren(...bundles.map((name) => element("option", { value: name }, name)));
  byId("bundle").value = session.bundle;
  const isNamed = bundles.length < 2 && card && card.name !== UNNAMED;
  const name = isNamed ? card.name : session.bundle;
  byId("model").textContent = `${name} answers for ${counted(session.labels.length, "label")}.`;
  byId("bundle-choice").hidden = bundles.length < 2;
  byId("about").hidden = !card;
  if (card) byId("card").replaceChildren(factsOf(card));
}

/** Return plain data as a list of facts, nested where the data is. */
function factsOf(value) {
  const facts = Object.entries(value).filter(([name, one]) => !HIDDEN.has(name) && hasContent(one));
  const parts = facts.flatMap(([name, one]) => [element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, shown(one))]);
  return element("dl", { className: "facts" }, ...parts);
}

const hasContent = (value) => value !== null && value !== "" && !(Array.isArray(value) && !value.length);

function shown(value) {
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(DIGITS)));
  if (Array.isArray(value)) return listed(value);
  if (typeof value === "object" && value !== null) return Object.keys(value).length ? factsOf(value) : "none";
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

function listed(values) {
  const first = values.slice(0, MOST_ITEMS);
  const isNested = first.some((one) => typeof one === "object" && one !== null);
  const inAll = `… (${values.length.toLocaleString("en")} in all)`;
  const isCut = values.length > MOST_ITEMS;
  if (!isNested) return [...first.map(shown), ...(isCut ? [inAll] : [])].join(", ") || "none";
  const items = first.map((one) => element("li", {}, oneLine(one) ?? shown(one)));
  return element("ul", {}, ...items, ...(isCut ? [element("li", {}, inAll)] : []));
}

/** Return facts without parts of their own in one line, such as those of a label; null for others. */
function oneLine(value) {
  if (Array.isArray(value) || typeof value !== "object" || value === null) return null;
  const facts = Object.entries(value).filter(([, one]) => hasContent(one));
  if (facts.some(([, one]) => typeof one === "object")) return null;
  return facts.map(([name, one]) => (name === "name" ? shown(one) : `${name.replaceAll("_", " ")} ${shown(one)}`)).join(", ");
}
