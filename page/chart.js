// Curves by epoch, as SVG.

import { element } from "./svg.js";

const MARGIN = { left: 44, right: 70, top: 10, bottom: 34 };
const LABEL_HEIGHT = 15; // Of the name at the end of a line.

/** A vertical axis whose numbers are the distance between lines. */
export const linear = { of: (value) => value };

/** A vertical axis on which as many times as much is as far. */
export const logarithmic = { of: (value) => Math.log(value) };

export class Chart {
  /** `axis` has `scale`, `low`, `high`, `ticks` and `unit`; `line` a value to be marked. */
  constructor(svg, axis) {
    this.svg = svg;
    this.axis = axis;
    this.lines = [];
    this.epochs = 1;
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  /** Lines have `name`, `look` and `values`, one for each epoch from 0 on, null where there is none. */
  show(lines, epochs) {
    this.lines = lines;
    this.epochs = epochs;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (width === 0) return;
    this.area = { right: width - MARGIN.right, bottom: height - MARGIN.bottom };
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...this.grid(), ...this.curves(), ...this.names());
  }

  x(epoch) {
    return MARGIN.left + ((this.area.right - MARGIN.left) * epoch) / this.epochs;
  }

  y(value) {
    const { scale, low, high } = this.axis;
    const inside = Math.min(Math.max(value, low), high);
    const part = (scale.of(inside) - scale.of(low)) / (scale.of(high) - scale.of(low));
    return this.area.bottom - (this.area.bottom - MARGIN.top) * part;
  }

  grid() {
    const { right, bottom } = this.area;
    const parts = [];
    for (const tick of this.axis.ticks) {
      const y = this.y(tick);
      const kind = tick === this.axis.line ? "grid strong" : "grid";
      parts.push(element("path", { class: kind, d: `M${MARGIN.left} ${y}H${right}` }));
      const place = { class: "tick", x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" };
      parts.push(element("text", place, `${tick}${this.axis.unit}`));
    }
    for (const epoch of ticks(this.epochs, (right - MARGIN.left) / 60)) {
      const x = this.x(epoch);
      parts.push(element("path", { class: "axis", d: `M${x} ${bottom}v4` }));
      parts.push(element("text", { class: "tick", x, y: bottom + 17, "text-anchor": "middle" }, epoch));
    }
    parts.push(element("path", { class: "axis", d: `M${MARGIN.left} ${bottom}H${right}` }));
    parts.push(element("text", { class: "tick", x: right + 14, y: bottom + 17 }, "epoch"));
    return parts;
  }

  curves() {
    return this.lines.map(({ look, values }) => {
      let pen = "M"; // The next point begins a stroke.
      const d = values.map((value, epoch) => {
        if (value === null) {
          pen = "M";
          return "";
        }
        const point = `${pen}${this.x(epoch).toFixed(1)} ${this.y(value).toFixed(1)}`;
        pen = "L";
        return point;
      });
      return element("path", { class: `curve ${look.colour}`, "stroke-dasharray": look.dashes, d: d.join("") });
    });
  }

  /** The names at the ends of the lines, pushed apart where these come together. */
  names() {
    const ends = this.lines
      .map(({ name, look, values }) => ({ name, look, epoch: values.length - 1, value: values.at(-1) ?? null }))
      .filter(({ value }) => value !== null)
      .map((end) => ({ ...end, x: this.x(end.epoch), y: this.y(end.value) }))
      .sort((one, other) => one.y - other.y);
    const places = spread(ends.map(({ y }) => y), MARGIN.top, this.area.bottom);
    const beside = Math.max(...ends.map(({ x }) => x)) + 12;
    return ends.flatMap(({ name, look, x, y }, index) => {
      const leader = element("path", { class: `leader ${look.colour}`, d: `M${x} ${y}L${beside} ${places[index]}` });
      return [leader, element("text", { class: "name", x: beside + 3, y: places[index] + 4 }, name)];
    });
  }
}

/** The places nearest to those wanted, in their order, that are apart and between two bounds. */
function spread(wanted, top, bottom) {
  const height = Math.min(LABEL_HEIGHT, (bottom - top) / Math.max(wanted.length - 1, 1));
  const places = [];
  wanted.forEach((y, index) => places.push(index > 0 ? Math.max(y, places[index - 1] + height) : y));
  let below = bottom + height;
  for (let index = places.length - 1; index >= 0; index -= 1) {
    places[index] = Math.min(places[index], below - height);
    below = places[index];
  }
  return places;
}

/** Round numbers from 0 to `end`, at most so many steps. */
function ticks(end, most) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500];
  const step = steps.find((size) => end / size <= most) ?? end;
  return Array.from({ length: Math.floor(end / step) + 1 }, (_, index) => index * step);
}
