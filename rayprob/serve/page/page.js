/** The page of `rayprob serve`: connects its parts to one session. */

import { listenToBundles, showModel } from "./about.js";
import { setTokenSource } from "./api.js";
import { listenToBars, makeRows, showBars } from "./bars.js";
import { listRules, listenToRule, showChosen, showEvidence } from "./chosen.js";
import { byId, isStill, percent } from "./dom.js";
import { listExamples, listenForImages, showPicture } from "./image.js";
import { drawMap, listenToMaps, offerMaps } from "./maps.js";
import { listenToQueries, showAnswers, showSets } from "./query.js";
import { showReasons, showUncertainty } from "./reasons.js";
import { Session } from "./session.js";

const session = new Session({ labels: showLabels, busy: showBusy, answer: showAnswer, fault: showFault });
let shownImage = null;

start();

async function start() {
  setTokenSource(askForToken);
  listenForImages(show, complain);
  listenToBars(session, explain);
  listenToRule(session);
  listenToQueries(session);
  listenToMaps(session);
  listenToBundles(session);
  try {
    await session.open(null);
  } catch (fault) {
    byId("model").textContent = "";
    complain(fault.message);
  }
}

function show(image) {
  complain("");
  showPicture(image);
  session.show(image);
}

function showLabels() {
  makeRows();
  listRules();
  showModel(session);
  listExamples(session.bundle, show);
}

function showAnswer() {
  const { answer, image } = session;
  complain("");
  document.querySelectorAll(".result").forEach((part) => (part.hidden = false));
  showBars();
  showEvidence();
  showChosen();
  showAnswers();
  showSets();
  showUncertainty(answer);
  showReasons(answer);
  offerMaps(image !== shownImage);
  shownImage = image;
  say(answer);
}

/** Tell screen readers what changed; the first labels are enough, the list has the rest. */
function say({ label_set: chosen, labels, evidence }) {
  const stated = Object.entries(evidence).map(([label, isPresent]) => `${label} ${isPresent ? "present" : "absent"}`);
  const first = labels.filter(({ label }) => !(label in evidence)).slice(0, 3).map(({ label, marginal }) => `${label} ${percent(marginal)}`);
  const given = stated.length ? `Given ${stated.join(", ")}: ` : "";
  byId("said").textContent = `${given}${chosen.length} chosen: ${chosen.slice(0, 5).join(", ") || "no label"}. Most probable: ${first.join(", ")}.`;
}

function explain(label) {
  byId("why").scrollIntoView({ behavior: isStill() ? "auto" : "smooth" });
  byId("why").focus({ preventScroll: true });
  drawMap(label);
}

/** Show that something is under way (a sentence, or "" for what is quick), or that it ended (null). */
function showBusy(sentence) {
  document.body.classList.toggle("busy", sentence !== null);
  byId("busy").textContent = sentence ?? "";
}

/** Show why a question failed; the page shows again what was answered before it. */
function showFault(fault) {
  showPicture(session.image);
  if (session.answer) showAnswer();
  complain(fault.message);
}

function complain(sentence) {
  byId("fault").textContent = sentence;
  byId("fault").hidden = !sentence;
}

/** Show the form for a token; the promise is kept when it is sent. */
function askForToken(wasRefused) {
  const form = byId("token-form");
  form.hidden = false;
  if (wasRefused) byId("token-hint").textContent = "The server refused this token; check it and send it again.";
  byId("token").focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      form.hidden = true;
      resolve(byId("token").value.trim());
    };
  });
}
