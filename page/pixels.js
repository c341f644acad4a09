// Numbers as pixels.

const SIDE = 8;
const ACROSS = 4; // Units side by side.
const GAP = 1;
const CLEAR = 0.7; // An exponent: the further below 1, the clearer are small weights.

/** An image in shades from the background to the ink of the page. */
export function drawImage(canvas, image) {
  const style = getComputedStyle(canvas);
  const [paper, ink] = ["--card", "--ink"].map((name) => rgb(style.getPropertyValue(name)));
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, SIDE, SIDE);
  image?.forEach((value, index) => {
    context.fillStyle = mix(paper, ink, value);
    context.fillRect(index % SIDE, Math.floor(index / SIDE), 1, 1);
  });
}

/** The weights of units: one colour where they are positive, another where negative, none where zero. */
export function drawUnits(canvas, units) {
  const rows = Math.ceil(units.length / ACROSS);
  const columns = Math.min(units.length, ACROSS);
  canvas.width = columns * (SIDE + GAP) - GAP;
  canvas.height = rows * (SIDE + GAP) - GAP;
  const style = getComputedStyle(canvas);
  const [zero, plus, minus] = ["--zero", "--plus", "--minus"].map((name) => rgb(style.getPropertyValue(name)));
  const largest = Math.max(...units.flat().map(Math.abs), Number.MIN_VALUE);
  const context = canvas.getContext("2d");
  units.forEach((weights, unit) => {
    const left = (unit % ACROSS) * (SIDE + GAP);
    const top = Math.floor(unit / ACROSS) * (SIDE + GAP);
    weights.forEach((weight, index) => {
      const part = (Math.abs(weight) / largest) ** CLEAR;
      context.fillStyle = mix(zero, weight > 0 ? plus : minus, part);
      context.fillRect(left + (index % SIDE), top + Math.floor(index / SIDE), 1, 1);
    });
  });
}

/** The three numbers of a colour `#rrggbb`. */
function rgb(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.trim().slice(at, at + 2), 16));
}

function mix(from, to, part) {
  return `rgb(${from.map((number, index) => Math.round(number + (to[index] - number) * part)).join(" ")})`;
}
