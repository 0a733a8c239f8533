/** The model: its name and labels at the top, its card at the foot, and a choice if the server has several bundles. */

import { getCard } from "./api.js";
import { byId, counted, element } from "./dom.js";

const UNNAMED = "unnamed"; // in the card of a bundle that records no run
const HIDDEN = new Set(["bundles"]);
const MOST_ITEMS = 30; // of a list in the card

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
  const facts = Object.entries(value).filter(([name, one]) => !HIDDEN.has(name) && one !== null && one !== "");
  const parts = facts.flatMap(([name, one]) => [element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, shown(one))]);
  return element("dl", { className: "facts" }, ...parts);
}

function shown(value) {
  if (Array.isArray(value)) return listed(value);
  if (typeof value === "object" && value !== null) return Object.keys(value).length ? factsOf(value) : "none";
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

function listed(values) {
  const first = values.slice(0, MOST_ITEMS);
  const isNested = first.some((one) => typeof one === "object" && one !== null);
  if (isNested) return element("ul", {}, ...first.map((one) => element("li", {}, shown(one))));
  const more = values.length > MOST_ITEMS ? `, … (${values.length.toLocaleString("en")} in all)` : "";
  return first.join(", ") + more || "none";
}
