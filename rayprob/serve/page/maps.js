/** Maps over the image: what each place adds to a label's logit, or how much the model attends to it. */

import { byId, element, signed, table } from "./dom.js";
import { pictureAddress } from "./image.js";

const METHODS = new Map([
  ["auto", "automatic"],
  ["contributions", "contributions"],
  ["attention", "attention"],
  ["gradcam", "Grad-CAM"],
  ["integrated_gradients", "integrated gradients"],
]);
// The colours of `explain/colours.py`, which also differ for the common kinds of colour blindness; the photo below them is grey.
const FOR = [215, 48, 31];
const AGAINST = [43, 108, 176];
const STRONGEST_ALPHA = 0.85;
const MOST_PX = 640;
const MOST_TALL_PX = 448; // as in page.css
const MOST_ENLARGED = 4;
const ABOUT = "A map explains the network's own output, before calibration, label prior and what you stated.";

let session = null;
const found = new Map(); // image, bundle, label and method -> explanation; evidence does not change it
let asking = null;
let offered = null; // the image and bundle whose labels are offered

export function listenToMaps(of) {
  session = of;
  const options = [...METHODS].map(([name, words]) => element("option", { value: name }, words));
  byId("map-method").replaceChildren(...options);
  byId("map-draw").addEventListener("click", () => drawMap(byId("map-label").value));
}

/** Offer all labels for a new image or bundle, the most probable first; the map of the one before goes. */
export function offerMaps() {
  const { answer, labels } = session;
  const shown = JSON.stringify([answer.sha256, answer.fingerprint]);
  if (shown === offered) return;
  offered = shown;
  const first = answer.labels.map(({ label }) => label);
  const options = [...new Set([...first, ...labels])].map((label) => element("option", { value: label }, label));
  byId("map-label").replaceChildren(...options);
  byId("map").replaceChildren();
}

/** Compute, show and describe the map of a label. */
export async function drawMap(label) {
  byId("map-label").value = label;
  const place = byId("map");
  const turn = (asking = {}); // a map that was asked for later wins
  place.replaceChildren(element("p", { className: "busy", role: "status" }, "Computing the map…"));
  try {
    const explanation = await explanationOf(label, byId("map-method").value);
    if (turn === asking) place.replaceChildren(...mapParts(explanation));
  } catch (fault) {
    if (turn === asking) place.replaceChildren(element("p", { className: "fault", role: "alert" }, fault.message));
  }
}

async function explanationOf(label, method) {
  const { sha256, fingerprint } = session.answer;
  const key = JSON.stringify([sha256, fingerprint, label, method]);
  if (!found.has(key)) {
    const { explanations } = await session.ask({ explain: [label], explain_method: method, top: 1 });
    if (!explanations?.length) throw new Error("The server sent no map for this label.");
    found.set(key, explanations[0]);
  }
  return found.get(key);
}

function mapParts(explanation) {
  const { label, values } = explanation;
  const cells = values.flat();
  const most = Math.max(...cells.map(Math.abs)) || 1;
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Map of ${label}. ${strongest(values)}`);
  const picture = element("img", { src: pictureAddress(), alt: "" });
  const smooth = element("input", { type: "checkbox", checked: true });
  const paint = () => paintMap(canvas, picture, explanation, most, smooth.checked);
  picture.addEventListener("load", () => {
    enlarge(picture);
    paint();
  });
  smooth.addEventListener("change", paint);
  const isSigned = Math.min(...cells) < 0;
  return [
    element("div", { className: "overlay" }, picture, canvas),
    legend(explanation, most, isSigned),
    element("label", { className: "small" }, smooth, " smooth the map"),
    element("p", {}, decomposition(explanation)),
    element("p", { className: "small" }, `${strongest(values)} ${ABOUT}`),
    numbers(explanation),
  ];
}

/** Enlarge a small picture, on which a map could not be seen, as far as there is room. */
function enlarge(picture) {
  const { naturalWidth, naturalHeight } = picture;
  const scale = Math.min(byId("map").clientWidth / naturalWidth, MOST_TALL_PX / naturalHeight, MOST_ENLARGED);
  if (scale > 1) picture.style.width = `${Math.floor(naturalWidth * scale)}px`;
}

/** Paint the grid over the part of the picture that it covers. */
function paintMap(canvas, picture, { values, height, width, box }, most, isSmooth) {
  const scale = Math.min(1, MOST_PX / Math.max(picture.naturalWidth, picture.naturalHeight));
  canvas.width = Math.max(1, Math.round(picture.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(picture.naturalHeight * scale));
  const [left, top, right, bottom] = box ?? [0, 0, 1, 1];
  const grid = gridOf(values.flat(), height, width, most);
  const paper = canvas.getContext("2d");
  paper.imageSmoothingEnabled = isSmooth;
  paper.imageSmoothingQuality = "high";
  const { width: x, height: y } = canvas;
  paper.drawImage(grid, left * x, top * y, (right - left) * x, (bottom - top) * y);
}

/** Return a canvas with one pixel per cell: the colour is the sign, the opacity the size. */
function gridOf(cells, height, width, most) {
  const grid = element("canvas", { width, height });
  const paper = grid.getContext("2d");
  const pixels = paper.createImageData(width, height);
  cells.forEach((value, cell) => {
    const alpha = Math.round(255 * STRONGEST_ALPHA * (Math.abs(value) / most));
    pixels.data.set([...(value < 0 ? AGAINST : FOR), alpha], 4 * cell);
  });
  paper.putImageData(pixels, 0, 0);
  return grid;
}

/** Return the scale of colours; only exact maps have a unit, that of the logit. */
function legend({ exact: isExact }, most, isSigned) {
  const high = isExact ? `${signed(most)} speaks for` : "speaks for";
  const low = isExact ? `${signed(-most)} speaks against` : "speaks against";
  const scale = element("span", { className: isSigned ? "scale both" : "scale", aria: { hidden: true } });
  const ends = [isSigned ? low : "nothing", high].map((text) => element("span", {}, text));
  return element("p", { className: "legend" }, ends[0], scale, ends[1]);
}

/** Return how the logit comes about, or what kind of map this is. */
function decomposition({ method, exact: isExact, logit, rest, values }) {
  const name = METHODS.get(method) ?? method;
  if (!isExact) return `By ${name}: where the output comes from. The values do not add up to the logit.`;
  const sum = values.flat().reduce((total, value) => total + value, 0);
  return `Exact: logit ${signed(logit)} = ${signed(sum)} from all places together, and ${signed(rest)} that has no place.`;
}

function strongest(values) {
  const cells = values.flatMap((row, y) => row.map((value, x) => ({ value, x, y })));
  const { value, x, y } = cells.reduce((best, one) => (one.value > best.value ? one : best));
  if (value <= 0) return "No place speaks for it.";
  const part = (at, count, names) => names[Math.min(2, Math.floor((3 * (at + 0.5)) / count))];
  const [height, width] = [values.length, values[0].length];
  const where = `${part(y, height, ["top", "centre", "bottom"])} ${part(x, width, ["left", "centre", "right"])}`;
  const cell = `row ${y + 1} of ${height}, column ${x + 1} of ${width} (${signed(value)})`;
  return `The strongest place for it is at the ${where === "centre centre" ? "centre" : where}: ${cell}.`;
}

/** Return the grid as a table, for those who read rather than see it; large grids are left out. */
function numbers({ label, values }) {
  if (values.length * values[0].length > 200) return "";
  const cells = table(`Values of the map of ${label}, row by row`, [], values.map((row) => row.map(signed)));
  return element("details", {}, element("summary", {}, "Numbers"), cells);
}
