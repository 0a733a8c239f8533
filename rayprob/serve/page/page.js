/** The page of `rayprob serve`: connects its parts to one session. */

import { listenToBundles, showModel } from "./about.js";
import { setTokenSource } from "./api.js";
import { clearBars, listenToBars, showBars } from "./bars.js";
import { listRules, listenToRule, showChosen, showEvidence } from "./chosen.js";
import { byId, isStill, percent } from "./dom.js";
import { listExamples, listenForImages, showPicture } from "./image.js";
import { drawMap, listenToMaps, offerMaps } from "./maps.js";
import { listenToQueries, showAnswers, showExamples, showSets } from "./query.js";
import { showReasons, showUncertainty } from "./reasons.js";
import { Session } from "./session.js";

const session = new Session({ labels: showLabels, busy: showBusy, answer: showAnswer, fault: showFault });

start();

function start() {
  setTokenSource(askForToken);
  listenForImages(show, complain);
  listenToBars(session, explain);
  listenToRule(session);
  listenToQueries(session);
  listenToMaps(session);
  listenToBundles(session);
  session.open(null);
}

function show(image) {
  complain("");
  showPicture(image);
  session.show(image);
}

function showLabels() {
  clearBars();
  listRules();
  showExamples();
  showModel(session);
  listExamples(session.bundle, show);
}

function showAnswer() {
  const { answer } = session;
  complain("");
  byId("intro").hidden = true;
  document.querySelectorAll(".result").forEach((part) => (part.hidden = false));
  showBars();
  showEvidence();
  showChosen();
  showAnswers();
  showSets();
  showUncertainty(answer);
  showReasons(answer);
  offerMaps();
  say(answer);
}

/** Tell screen readers what changed; the first labels are enough, the list has the rest. */
function say({ label_set: chosen, labels }) {
  const { evidence } = session;
  const stated = [...evidence].map(([label, isPresent]) => `${label} ${isPresent ? "present" : "absent"}`);
  const free = labels.filter(({ label }) => !evidence.has(label)).slice(0, 3);
  const first = free.map(({ label, marginal }) => `${label} ${percent(marginal)}`);
  const given = stated.length ? `Given ${stated.join(", ")}: ` : "";
  const names = chosen.slice(0, 5).join(", ") || "no label";
  byId("said").textContent = `${given}${chosen.length} chosen: ${names}. Most probable: ${first.join(", ")}.`;
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
  if (!session.bundle) byId("model").textContent = "";
  byId("bundle").value = session.bundle;
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
