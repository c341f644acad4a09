// Where the visitor draws, with a pointer or with keys.

const STEPS = 16; // How far the keys' pen goes from edge to edge.
const STROKE = 0.075; // Width of a stroke, as a part of the pad's.
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  /** Calls `changed` with the strokes whenever there are others, and `said` with what a key has done. */
  constructor(canvas, changed, said) {
    this.canvas = canvas;
    this.changed = changed;
    this.said = said;
    this.strokes = [];
    this.pen = { x: 0.5, y: 0.25 };
    this.down = false; // Whether the keys' pen draws.
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.draw());
    canvas.addEventListener("blur", () => this.lift());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear() {
    this.strokes = [];
    this.down = false;
    this.tell();
  }

  tell() {
    this.draw();
    this.changed(this.strokes);
  }

  lift() {
    this.down = false;
    this.draw();
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.down = false;
    this.strokes.push([this.place(event)]);
    this.tell();
  }

  move(event) {
    if (!this.canvas.hasPointerCapture(event.pointerId)) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length > 0 ? events : [event]) this.strokes.at(-1).push(this.place(one));
    this.tell();
  }

  /** Where on the pad a pointer is, from 0 to 1. */
  place({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return { x: (clientX - left) / width, y: (clientY - top) / height };
  }

  key(event) {
    if (MOVES[event.key]) this.step(...MOVES[event.key]);
    else if (event.key === " ") this.toggle();
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else return;
    event.preventDefault();
  }

  step(right, down) {
    const inside = (number) => Math.min(Math.max(number, 0), 1);
    this.pen = { x: inside(this.pen.x + right / STEPS), y: inside(this.pen.y + down / STEPS) };
    if (this.down) {
      this.strokes.at(-1).push(this.pen);
      this.tell();
    } else {
      this.draw();
    }
    this.say();
  }

  toggle() {
    this.down = !this.down;
    if (this.down) {
      this.strokes.push([this.pen]);
      this.tell();
    } else {
      this.draw();
    }
    this.say();
  }

  say() {
    const [column, row] = [this.pen.x, this.pen.y].map((part) => Math.round(part * STEPS));
    this.said(`Pen ${this.down ? "down" : "up"}, ${column} from the left, ${row} from the top of ${STEPS}.`);
  }

  draw() {
    const { canvas } = this;
    const size = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== size || canvas.height !== size) canvas.width = canvas.height = size;
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    context.clearRect(0, 0, size, size);
    context.strokeStyle = style.color;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = STROKE * size;
    for (const stroke of this.strokes) {
      context.beginPath();
      stroke.forEach(({ x, y }) => context.lineTo(x * size, y * size));
      if (stroke.length === 1) context.lineTo(stroke[0].x * size, stroke[0].y * size);
      context.stroke();
    }
    if (document.activeElement === canvas && canvas.matches(":focus-visible")) this.drawPen(context, style, size);
  }

  /** A ring where the keys' pen is, filled while it draws. */
  drawPen(context, style, size) {
    context.beginPath();
    context.arc(this.pen.x * size, this.pen.y * size, 0.025 * size, 0, 2 * Math.PI);
    context.lineWidth = 0.01 * size;
    context.strokeStyle = context.fillStyle = style.getPropertyValue("--accent");
    if (this.down) context.fill();
    context.stroke();
  }
}
