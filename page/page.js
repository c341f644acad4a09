// Puts the page together: the settings, the worker that trains, and what is drawn of it.

import { Chart, linear, logarithmic } from "./chart.js";
import { imageOf } from "./digit.js";
import { NetView, meanAngle } from "./nets.js";
import { Pad } from "./pad.js";
import { drawImage } from "./pixels.js";

const byId = (id) => document.getElementById(id);
const form = byId("settings");
const [runButton, resetButton, sampleButton] = ["run", "reset", "sample"].map(byId);
const rules = [...form.elements.rule].map(({ value }) => value);
const worker = new Worker("worker.js");
const errors = new Chart(byId("errors"), {
  scale: logarithmic, low: 1, high: 100, ticks: [1, 2, 5, 10, 20, 50, 100], unit: " %",
});
const angles = new Chart(byId("angles"), {
  scale: linear, low: 0, high: 120, ticks: [0, 30, 60, 90, 120], line: 90, unit: "°",
});

let state = "loading"; // Or ready, training, paused, done.
let nets = [];
let epochs = 0;
let run = 0; // Which nets these are; answers about others come too late.
let image = null;
let sampleNumber = 0;
let drawing = false; // Whether the charts are drawn before the next frame.
let told = 0; // The last epoch that was announced.

const LABELS = { loading: "Start", ready: "Start", training: "Pause", paused: "Go on", done: "Start again" };

function enter(next, text) {
  state = next;
  runButton.textContent = LABELS[state];
  runButton.disabled = resetButton.disabled = sampleButton.disabled = state === "loading";
  document.body.dataset.state = state;
  if (text !== undefined) byId("status").textContent = text;
}

function complain(message) {
  byId("problem").textContent = message ?? "";
  byId("problem").hidden = !message;
}

/** The settings, or null if a field has no use. */
function settings() {
  const { elements } = form;
  const wrong = [...elements].find((field) => field.willValidate && !field.checkValidity());
  if (wrong) {
    complain(`${wrong.labels[0].firstChild.textContent.trim()}: ${wrong.validationMessage}`);
    return null;
  }
  const numbers = Object.fromEntries(
    ["width", "depth", "rate", "seed"].map((name) => [name, Number(elements[name].value)]),
  );
  return {
    rules: [...elements.rule].filter(({ checked }) => checked).map(({ value }) => value),
    activation: elements.activation.value,
    feedback: elements.feedback.value,
    optimizer: elements.optimizer.value,
    ...numbers,
  };
}

/** Makes new nets by the settings, which train at once or wait. */
function restart(training) {
  complain(null);
  const chosen = settings();
  if (!chosen) return;
  if (chosen.rules.length === 0) return complain("Tick at least one rule.");
  run += 1;
  epochs = Number(form.elements.epochs.value);
  told = 0;
  worker.postMessage({ type: "start", settings: chosen, epochs, run, running: training });
  if (training) enter("training", "Training …");
  else enter("ready", "Ready.");
}

function toggle() {
  if (state === "ready" && nets.length > 0) resume("Training …");
  else if (state === "ready" || state === "done") restart(true);
  else if (state === "paused") resume("Training …");
  else pause();
}

function resume(text) {
  if (!byId("problem").hidden) return restart(true); // A net that was asked for has not been made.
  worker.postMessage({ type: "run", running: true });
  enter("training", text);
}

function pause() {
  worker.postMessage({ type: "run", running: false });
  enter("paused", "Paused.");
}

/** Draws the charts once a frame, however many epochs it brings. */
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    errors.show(nets.map((net) => net.line((score) => score.test_error)), epochs);
    angles.show(nets.map((net) => net.line(meanAngle)), epochs);
  });
}

/** Announces every tenth epoch, and no more: a status is read aloud. */
function announce(epoch) {
  if (state !== "training" || epoch < told + 10) return;
  told = epoch;
  byId("status").textContent = `Training: epoch ${epoch} of ${epochs}.`;
}

const answers = {
  ready() {
    enter("ready", "Ready.");
    restart(false);
  },
  made({ nets: made }) {
    nets = made.map((net) => new NetView(net, rules.indexOf(net.rule)));
    byId("scores").tBodies[0].replaceChildren(...nets.map(({ row }) => row));
    byId("nets").replaceChildren(...nets.map(({ card }) => card));
    const widest = Math.max(...nets.map((net) => net.pictureWidth));
    nets.forEach((net) => net.scalePicture(widest));
    redraw();
    performance.mark("ready");
  },
  score({ net, score }) {
    nets[net].add(score);
    redraw();
    announce(Math.min(...nets.map(({ scores }) => scores.length - 1)));
  },
  failed({ net, message }) {
    nets[net].fail(message);
  },
  features({ net, units }) {
    nets[net].features(units);
  },
  classes({ nets: probabilities }) {
    if (image) probabilities.forEach((one, net) => nets[net].classes(one));
    sayAnswers();
  },
  done() {
    enter("done", `Done: ${epochs} epochs.`);
  },
  sample({ image: pixels, label }) {
    pad.clear();
    look(pixels);
    byId("pad-state").textContent = `A test digit that shows a ${label}.`;
  },
  problem({ message }) {
    complain(message);
    enter(state === "loading" ? "loading" : "ready", "Nothing is trained.");
  },
};

worker.onmessage = ({ data }) => {
  if (data.run === undefined || data.run === run) answers[data.type](data);
};
worker.onerror = ({ message }) => complain(`The nets have stopped: ${message}`);

/** Has the nets look at an image, or at none. */
function look(pixels) {
  image = pixels;
  drawImage(byId("seen"), image);
  worker.postMessage({ type: "classify", image });
  if (!image) nets.forEach((net) => net.classes(null));
  sayAnswers();
}

/** Says beside the drawing what the nets take it for, if they have changed their minds. */
function sayAnswers() {
  const known = nets.filter(({ answer }) => answer !== null).map(({ rule, answer }) => `${rule} ${answer}`);
  const text = known.length > 0 ? `They answer: ${known.join(", ")}.` : "";
  if (byId("answers").textContent !== text) byId("answers").textContent = text;
}

const pad = new Pad(
  byId("pad"),
  (strokes) => {
    look(imageOf(strokes));
    byId("pad-state").textContent = image ? "The nets look at your drawing." : "Nothing drawn yet.";
  },
  (text) => {
    byId("pad-state").textContent = text;
  },
);

form.addEventListener("submit", (event) => event.preventDefault()); // Enter in a field changes it, and no more.
runButton.addEventListener("click", toggle);
form.addEventListener("change", ({ target }) => {
  const { optimizer, rate } = form.elements;
  if (target === optimizer) rate.value = optimizer.selectedOptions[0].dataset.rate; // One that suits it.
  if (state !== "loading") restart(state === "training");
});
resetButton.addEventListener("click", () => restart(false));
byId("clear").addEventListener("click", () => pad.clear());
sampleButton.addEventListener("click", () => {
  worker.postMessage({ type: "sample", number: sampleNumber });
  sampleNumber += 1;
});

/** Draws anew what has taken its colours from the page. */
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  nets.forEach((net) => net.repaint());
  pad.draw();
  drawImage(byId("seen"), image);
});
