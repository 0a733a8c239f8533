/** The HTTP interface. Addresses are relative to the page, so that it works below any path. */

const TOKEN_KEY = "rayprob-token"; // kept until the tab is closed

let token = sessionStorage.getItem(TOKEN_KEY) ?? "";
let askForToken = null; // (wasRefused) => Promise of a token
let pending = null; // several requests that are refused at once ask once

/** An answer of the server that is an error, or no answer at all (status 0). */
export class Fault extends Error {
  constructor(status, { kind = "", message, at = null }) {
    super(message);
    Object.assign(this, { status, kind, at });
  }
}

export function setTokenSource(source) {
  askForToken = source;
}

export const getLabels = (bundle) => getJson("v1/labels", bundle);
export const getCard = (bundle) => getJson("v1/bundle", bundle);
export const getExamples = (bundle) => getJson("v1/examples", bundle);

/** Return the bytes of an example image. */
export async function getImage(url) {
  return (await request(url, {})).blob();
}

/** Send an image with a question. */
export async function predict(image, options, signal) {
  const body = new FormData();
  body.append("image", image, "image");
  body.append("options", JSON.stringify(options));
  return (await request("v1/predict", { method: "POST", body, signal })).json();
}

/** Ask about an image that the server knows by its sha256. */
export async function query(sha256, options, signal) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ sha256, ...options });
  return (await request("v1/query", { method: "POST", headers, body, signal })).json();
}

async function getJson(path, bundle) {
  const answer = await request(bundle ? `${path}?bundle=${encodeURIComponent(bundle)}` : path, {});
  return answer.json();
}

/** Fetch; ask for a token as often as the server refuses the one that was sent. Throws Fault, or AbortError. */
async function request(path, init) {
  for (;;) {
    const sent = token;
    const answer = await fetched(path, withToken(init, sent));
    if (answer.ok) return answer;
    if (answer.status !== 401) throw await faultOf(answer);
    if (sent === token) await newToken(sent);
  }
}

async function fetched(path, init) {
  try {
    return await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault(0, { message: "The server does not answer; check that `rayprob serve` is running, then try again." });
  }
}

function withToken(init, sent) {
  return sent ? { ...init, headers: { ...init.headers, Authorization: `Bearer ${sent}` } } : init;
}

async function newToken(sent) {
  pending ??= askForToken(sent !== "").finally(() => (pending = null));
  token = await pending;
  sessionStorage.setItem(TOKEN_KEY, token);
}

async function faultOf(answer) {
  const { error } = await answer.json().catch(() => ({}));
  const unexplained = { message: `The server answered with status ${answer.status} ${answer.statusText}.` };
  return new Fault(answer.status, error ?? unexplained);
}
