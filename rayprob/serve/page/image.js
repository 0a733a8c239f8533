/** Where images come from: a file that is chosen, photographed, dropped or pasted, or an example of the bundle. */

import { getExamples, getImage } from "./api.js";
import { byId, element } from "./dom.js";

const NOT_A_FILE = "That is not an image file; save the image first, then drop or choose its file.";

let address = null; // of the picture shown, as an object URL
let exampleAddresses = [];

/** Call `show(blob)` for every image that comes, and `complain(sentence)` for what is dropped and is not a file. */
export function listenForImages(show, complain) {
  byId("camera").parentElement.hidden = navigator.maxTouchPoints === 0; // phones and tablets have a camera to point
  for (const id of ["file", "camera"]) {
    byId(id).addEventListener("change", ({ target }) => {
      if (target.files.length) show(target.files[0]);
      target.value = ""; // the same file can be chosen again
    });
  }
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (!file) return;
    event.preventDefault();
    show(file);
  });
  listenForDrops((file) => (file ? show(file) : complain(NOT_A_FILE)));
}

function listenForDrops(take) {
  let depth = 0; // enter and leave also come for every element below the pointer
  const mark = (change) => {
    depth = change === 0 ? 0 : depth + change;
    document.body.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(0);
    take(event.dataTransfer.files[0]);
  });
}

/** Show the picture of an image, or the place to drop one if `image` is null. */
export function showPicture(image) {
  const picture = byId("picture");
  if (address) URL.revokeObjectURL(address);
  address = image && URL.createObjectURL(image);
  picture.hidden = !image;
  byId("drop").classList.toggle("full", Boolean(image));
  if (!image) return picture.removeAttribute("src");
  picture.alt = image.name ? `The image ${image.name}` : "The image";
  picture.src = address;
}

export const pictureAddress = () => address;

/** List the bundle's example images, each a button that shows it. */
export async function listExamples(bundle, show) {
  exampleAddresses.forEach((one) => URL.revokeObjectURL(one));
  const found = await getExamples(bundle).catch(() => []);
  const images = await Promise.all(found.map(({ url }) => getImage(url).catch(() => null)));
  const items = found.flatMap(({ name }, place) => (images[place] ? [exampleItem(name, images[place], show)] : []));
  exampleAddresses = items.map(({ url }) => url);
  byId("examples").replaceChildren(...items.map(({ item }) => item));
  byId("examples-part").hidden = !items.length;
}

/** The image is fetched here, not by its element, which could not send the token. */
function exampleItem(name, image, show) {
  const url = URL.createObjectURL(image);
  const picture = element("img", { src: url, alt: "" });
  const on = { click: () => show(image) };
  const button = element("button", { title: name, aria: { label: `Example ${name}` }, on }, picture);
  return { url, item: element("li", {}, button) };
}
