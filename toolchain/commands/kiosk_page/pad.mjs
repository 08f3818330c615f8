// The sheet that a person writes on: strokes of pointers and of the keyboard, and the picture that they make.
//
// It fires `stroke` when the strokes have changed. Coordinates are CSS pixels of the canvas.

import { picture } from "/calibration/glyph.mjs";

const STEP = 8;
const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
// Heights of the sheet in the width of the pen.
const PENS = 22;

export class Pad extends EventTarget {
  constructor(canvas) {
    super();
    // strokes: { points, pen }. cleared: those of the sheet that was cleared last. open: stroke of each pointer that is
    // down. caret: the pen of the keyboard.
    Object.assign(this, { canvas, strokes: [], cleared: [], open: new Map(), width: 0, height: 0 });
    this.caret = { x: 0, y: 0, stroke: null, shown: false };
    new ResizeObserver(() => this.fit()).observe(canvas);
    this.fit();
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.up(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.show());
  }

  // What is written keeps its place when the window changes.
  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || (width === this.width && height === this.height)) return;
    const scale = this.width ? Math.min(width / this.width, height / this.height) : 1;
    for (const stroke of [...this.strokes, ...this.cleared]) {
      stroke.pen *= scale;
      stroke.points = stroke.points.map((point) => point.map((place) => place * scale));
    }
    Object.assign(this, { width, height });
    Object.assign(this.caret, { x: width / 10, y: height / 2, stroke: null });
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    if (this.strokes.length) this.changed();
    else this.show();
  }

  changed() {
    this.show();
    this.dispatchEvent(new Event("stroke"));
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const border = this.canvas.clientLeft;
    return [event.clientX - box.left - border, event.clientY - box.top - border];
  }

  stroke(points) {
    return { points, pen: this.height / PENS };
  }

  down(event) {
    if (event.button > 0) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.caret.shown = false;
    try {
      this.canvas.setPointerCapture(event.pointerId);
    } catch {
      // A pointer that has ended meanwhile cannot be captured.
    }
    this.open.set(event.pointerId, this.stroke([this.place(event)]));
    this.show();
  }

  move(event) {
    const stroke = this.open.get(event.pointerId);
    if (!stroke) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) stroke.points.push(this.place(each));
    this.show();
  }

  up(event) {
    const stroke = this.open.get(event.pointerId);
    if (!stroke) return;
    this.open.delete(event.pointerId);
    this.strokes.push(stroke);
    this.changed();
  }

  key(event) {
    const { caret } = this;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") {
      if (caret.stroke) caret.stroke = null;
      else this.strokes.push((caret.stroke = this.stroke([[caret.x, caret.y]])));
    } else if (event.key in MOVES) {
      const [right, down] = MOVES[event.key];
      caret.x = Math.min(Math.max(caret.x + right, 0), this.width);
      caret.y = Math.min(Math.max(caret.y + down, 0), this.height);
      caret.stroke?.points.push([caret.x, caret.y]);
    } else return;
    event.preventDefault();
    caret.shown = true;
    // As with a pointer, a stroke is read when the pen is lifted.
    if (event.key === " " && !caret.stroke) this.changed();
    else this.show();
  }

  // Take the last stroke back, or the last clearing of the sheet.
  undo() {
    if (this.strokes.length) this.strokes.pop();
    else [this.strokes, this.cleared] = [this.cleared, []];
    this.caret.stroke = null;
    this.changed();
  }

  clear() {
    if (this.strokes.length) this.cleared = this.strokes;
    this.strokes = [];
    this.caret.stroke = null;
    this.changed();
  }

  draw(context, colour) {
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = context.fillStyle = colour;
    for (const { points, pen } of [...this.strokes, ...this.open.values()]) {
      context.lineWidth = pen;
      context.beginPath();
      const [[left, top]] = points;
      // Some canvases draw nothing of a line without length.
      if (points.every(([x, y]) => x === left && y === top)) {
        context.arc(left, top, pen / 2, 0, 7);
        context.fill();
        continue;
      }
      context.moveTo(...points[0]);
      for (const point of points.slice(1)) context.lineTo(...point);
      context.stroke();
    }
  }

  // Many points of a stroke come within one frame of the screen.
  show() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.paint();
    });
  }

  paint() {
    const context = this.canvas.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    this.draw(context, getComputedStyle(this.canvas).color);
    if (!this.caret.shown) return;
    context.beginPath();
    context.arc(this.caret.x, this.caret.y, 6, 0, 7);
    context.fillStyle = this.caret.stroke ? "#dc2626" : "#2563eb";
    context.fill();
  }

  // What is written as the models' preparation gets it: black on white.
  picture() {
    const sheet = new OffscreenCanvas(this.width, this.height).getContext("2d", { willReadFrequently: true });
    sheet.fillStyle = "white";
    sheet.fillRect(0, 0, this.width, this.height);
    this.draw(sheet, "black");
    const { data } = sheet.getImageData(0, 0, this.width, this.height);
    return picture(this.width, this.height, Uint8Array.from({ length: data.length / 4 }, (_, at) => data[4 * at]));
  }
}
