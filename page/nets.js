// What the page shows of each net: a row of the table and a card.

import { lookOf } from "./look.js";
import { drawUnits } from "./pixels.js";

const DIGITS = Array.from({ length: 10 }, (_, digit) => digit);

export class NetView {
  /** `number` is that of the rule among all rules. */
  constructor({ rule, picture, score }, number) {
    this.rule = rule;
    this.look = lookOf(number);
    this.scores = [];
    this.units = null;
    this.row = document.createElement("tr");
    this.card = document.getElementById("net").content.firstElementChild.cloneNode(true);
    this.fillCard(picture);
    this.fillRow();
    this.add(score);
  }

  find(selector) {
    return this.card.querySelector(selector);
  }

  fillCard(picture) {
    this.find(".rule").textContent = this.rule;
    this.find(".route").innerHTML = picture;
    this.find(".features").setAttribute("aria-label", `What units of the first hidden layer have learned under ${this.rule}`);
    const path = this.find(".swatch path");
    path.setAttribute("class", `curve ${this.look.colour}`);
    path.setAttribute("stroke-dasharray", this.look.dashes);
    this.find(".bars").replaceChildren(...DIGITS.map(bar));
    this.classes(null);
  }

  get pictureWidth() {
    return this.find(".route svg").viewBox.baseVal.width;
  }

  /** Gives the picture of the route its part of the card, so that all have the same scale. */
  scalePicture(widest) {
    this.find(".route svg").style.width = `${(100 * this.pictureWidth) / widest}%`;
  }

  fillRow() {
    const head = document.createElement("th");
    head.scope = "row";
    head.append(this.find(".swatch").cloneNode(true), ` ${this.rule}`);
    const cells = Array.from({ length: 4 }, () => document.createElement("td"));
    this.row.dataset.rule = this.rule;
    this.row.append(head, ...cells);
  }

  /** Takes the score after another epoch. */
  add(score) {
    this.scores.push(score);
    const { epoch, test_error: error, angles } = score;
    const lowest = Math.min(...this.scores.map((one) => one.test_error));
    this.row.dataset.error = error;
    this.row.dataset.lowest = lowest;
    const degrees = (angle) => (angle === null ? "–" : `${angle.toFixed(0)}°`);
    const texts = [epoch, percent(error), percent(lowest), angles.map(degrees).join(" ")];
    texts.forEach((text, index) => {
      this.row.cells[index + 1].textContent = text;
    });
  }

  /** Says in the table why the net learns no further. */
  fail(message) {
    this.row.classList.add("failed");
    this.row.cells[4].textContent = message;
  }

  features(units) {
    this.units = units;
    this.repaint();
  }

  repaint() {
    if (this.units) drawUnits(this.find(".features"), this.units);
  }

  /** Shows how likely each digit is, or that nothing is drawn. */
  classes(probabilities) {
    const best = probabilities ? probabilities.indexOf(Math.max(...probabilities)) : null;
    this.answer = best;
    this.card.dataset.answer = best ?? "";
    this.find(".answer b").textContent = best ?? "–";
    this.find(".answer span").textContent = best === null ? "" : percent(100 * probabilities[best], 0);
    const bars = this.find(".bars");
    [...bars.children].forEach((one, digit) => {
      one.firstElementChild.style.height = `${100 * (probabilities?.[digit] ?? 0)}%`;
      one.classList.toggle("best", digit === best);
    });
    bars.setAttribute("aria-label", best === null ? "No drawing to answer to" : spoken(probabilities));
  }

  /** The line of this net in a chart. */
  line(valueOf) {
    return { name: this.rule, look: this.look, values: this.scores.map(valueOf) };
  }
}

function bar(digit) {
  const made = document.createElement("div");
  const [fill, name] = [document.createElement("i"), document.createElement("span")];
  name.textContent = digit;
  made.append(fill, name);
  return made;
}

function percent(number, digits = 1) {
  return `${number.toFixed(digits)} %`;
}

/** The likely digits in words. */
function spoken(probabilities) {
  const likely = DIGITS.filter((digit) => probabilities[digit] >= 0.05);
  return likely.map((digit) => `${digit} with ${percent(100 * probabilities[digit], 0)}`).join(", ");
}

/** The mean angle of a score, null if no hidden layer has one. */
export function meanAngle({ angles }) {
  const known = angles.filter((angle) => angle !== null);
  return known.length === 0 ? null : known.reduce((sum, angle) => sum + angle, 0) / known.length;
}
