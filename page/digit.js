// Makes of a drawing what the data set has made of its own: the digit fills the height of 32×32 dots, and
// a pixel is the share of black ones among 4×4.

const DOTS = 32;
const SIDE = 8; // Pixels of the image.
const PEN = 3; // Half the width of a stroke, in dots: with finer strokes nets take sevens for threes.
const WIDEST = 26; // Dots; digits of the data set are higher than wide.
const LEAST = 1e-3; // What is smaller than that has no size.

/** The image of strokes, lists of points `{ x, y }`, as 64 numbers from 0 to 1; null if there is nothing. */
export function imageOf(strokes) {
  const points = strokes.flat();
  if (points.length === 0) return null;
  const fitted = strokes.map((stroke) => stroke.map(fit(points)));
  const dots = Array.from({ length: DOTS * DOTS }, (_, index) => {
    const dot = { x: (index % DOTS) + 0.5, y: Math.floor(index / DOTS) + 0.5 };
    return fitted.some((stroke) => touches(stroke, dot)) ? 1 : 0;
  });
  return Array.from({ length: SIDE * SIDE }, (_, index) => share(dots, index % SIDE, Math.floor(index / SIDE)));
}

/** Moves a drawing into the middle of the dots and gives it their height, or the greatest width. */
function fit(points) {
  const [left, width] = extent(points.map(({ x }) => x));
  const [top, height] = extent(points.map(({ y }) => y));
  const room = (most, size) => (size > LEAST ? (most - 2 * PEN) / size : Infinity);
  const scale = Math.min(room(DOTS, height), room(WIDEST, width));
  const factor = Number.isFinite(scale) ? scale : 0; // A single dot.
  return ({ x, y }) => ({
    x: DOTS / 2 + (x - left - width / 2) * factor,
    y: DOTS / 2 + (y - top - height / 2) * factor,
  });
}

/** The smallest of some numbers, and how far it is to the largest. */
function extent(numbers) {
  const least = numbers.reduce((one, other) => Math.min(one, other));
  return [least, numbers.reduce((one, other) => Math.max(one, other)) - least];
}

function touches(stroke, dot) {
  return stroke.some((point, index) => distance(stroke[Math.max(index - 1, 0)], point, dot) < PEN);
}

/** How far a dot is from the line between two points. */
function distance(from, to, dot) {
  const along = { x: to.x - from.x, y: to.y - from.y };
  const length = along.x ** 2 + along.y ** 2;
  const part = length === 0 ? 0 : ((dot.x - from.x) * along.x + (dot.y - from.y) * along.y) / length;
  const near = Math.min(Math.max(part, 0), 1);
  return Math.hypot(from.x + near * along.x - dot.x, from.y + near * along.y - dot.y);
}

/** The share of black dots in a pixel. */
function share(dots, column, row) {
  const size = DOTS / SIDE;
  let black = 0;
  for (let y = row * size; y < (row + 1) * size; y += 1) {
    for (let x = column * size; x < (column + 1) * size; x += 1) black += dots[y * DOTS + x];
  }
  return black / size ** 2;
}
