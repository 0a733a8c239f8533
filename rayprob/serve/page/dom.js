/** Builds elements from data that is not trusted: names of labels are always text, never markup. Formats numbers. */

export const byId = (id) => document.getElementById(id);

/** Return an element. Properties are set as such; `data`, `on` and `aria` are mappings of attributes and listeners. */
export function element(tag, { data = {}, on = {}, aria = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(data)) made.dataset[name] = value;
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  made.append(...children);
  return made;
}

/** Return text that only screen readers show. */
export const spoken = (text) => element("span", { className: "hidden-label" }, text);

/** Return a probability in percent; only 0 and 1 themselves become 0 % and 100 %. */
export function percent(p, digits = 1) {
  const least = 10 ** -digits;
  if (p > 0 && 100 * p < least) return `<${least}\u00a0%`;
  if (p < 1 && 100 * (1 - p) < least) return `>${(100 - least).toFixed(digits)}\u00a0%`;
  return `${p === 0 || p === 1 ? 100 * p : (100 * p).toFixed(digits)}\u00a0%`;
}

/** Return a number with its sign, to two decimals. */
export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

export const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Return a bar from `low` to `high`; the number next to it is what screen readers read. */
export function bar(high, low = 0) {
  const fill = element("span", { className: "fill" });
  fill.style.transform = `translateX(${100 * low}%) scaleX(${high - low})`;
  return element("span", { className: "track", aria: { hidden: true } }, fill);
}

/** Return a table of texts, which scrolls if it is wider than the page. A first column of names wraps. */
export function table(caption, head, rows) {
  const className = (place) => (place === 0 && head.length ? "text" : "");
  const headers = head.map((text, place) => element("th", { scope: "col", className: className(place) }, text));
  const cell = (text, place) => element("td", { className: className(place) }, element("bdi", {}, text));
  const lines = rows.map((row) => element("tr", {}, ...row.map(cell)));
  const header = headers.length ? [element("thead", {}, element("tr", {}, ...headers))] : [];
  const made = element("table", {}, element("caption", {}, caption), ...header, element("tbody", {}, ...lines));
  return element("div", { className: "scroll", tabIndex: 0, role: "group", ariaLabel: caption }, made);
}
