// A model of the run folder: an upright 28x28 glyph becomes its input as targets/preprocess.py does it.

import { middle } from "/kiosk/reading.mjs";

const SIDE = 28;
const WARM_UP = 5;
// Orientation -> the place in the upright glyph of row and column of the input.
const TURNS = {
  upright: (r, c) => [r, c],
  mirror: (r, c) => [r, 27 - c],
  flip: (r, c) => [27 - r, c],
  rot180: (r, c) => [27 - r, 27 - c],
  transpose: (r, c) => [c, r],
  rot90: (r, c) => [c, 27 - r],
  rot270: (r, c) => [27 - c, r],
  "anti-transpose": (r, c) => [27 - c, 27 - r],
};
const ARRAYS = { float32: Float32Array, uint8: Uint8Array, int8: Int8Array, int32: Int32Array };
const LIMITS = { uint8: [0, 255], int8: [-128, 127], int32: [-(2 ** 31), 2 ** 31 - 1] };

export async function openModel(number, facts, device) {
  const answer = await fetch(`/model/${number}`);
  if (!answer.ok) throw new Error(await answer.text());
  const { load } = await import(`/page/${facts.options.runtime}.mjs`);
  const file = new Uint8Array(await answer.arrayBuffer());
  const model = new Model(facts, await load(file, { ...facts.options, device, threads: 1 }), device);
  // The first inferences are slow, until this code is compiled, and show whether the file runs at all.
  await model.infer(new Uint8Array(SIDE * SIDE), WARM_UP);
  return model;
}

export class Model {
  constructor(facts, loaded, device) {
    Object.assign(this, { facts, loaded, device });
  }

  // The pixels as the model gets them: turned, and dark on light where it wants that.
  seen(pixels) {
    const { orientation, invert, dtype } = this.facts.preprocess;
    const place = TURNS[orientation];
    return Uint8Array.from(pixels, (_, at) => {
      const [row, column] = place(Math.floor(at / SIDE), at % SIDE);
      const level = pixels[row * SIDE + column];
      return invert && dtype !== "uint8" ? 255 - level : level;
    });
  }

  // The values of one image in the type of the file's input.
  input(pixels) {
    const { preprocess, source } = this.facts;
    const seen = this.seen(pixels);
    if (preprocess.dtype === "uint8" && source.dtype === "uint8") return seen;
    const values = Float32Array.from(seen, (level) => {
      let value = preprocess.dtype === "uint8" || preprocess.scale !== "0-1" ? level : Math.fround(level / 255);
      if (preprocess.dtype === "uint8") return value;
      if (preprocess.mean) value = Math.fround(value - Math.fround(preprocess.mean));
      return preprocess.std === 1 ? value : Math.fround(value / Math.fround(preprocess.std));
    });
    if (source.dtype === "float32") return values;
    const [least, most] = LIMITS[source.dtype];
    return ARRAYS[source.dtype].from(values, (value) => {
      const steps = evenRound(Math.fround(value / Math.fround(source.scale))) + source.zeroPoint;
      return Math.min(Math.max(steps, least), most);
    });
  }

  // The logits of the classes, and the milliseconds of one inference: the median of `runs`.
  async infer(pixels, runs) {
    const { source, sink, shape, preprocess, classes } = this.facts;
    const one = this.input(pixels);
    const batch = new ARRAYS[source.dtype](one.length * shape[0]);
    // A repeated image, unlike zeros, does not change the ranges of dynamic quantization.
    for (let row = 0; row < shape[0]; row += 1) batch.set(one, row * one.length);
    const input = this.loaded.input(source.dtype, shape, batch);
    const took = [];
    let raw;
    for (let run = 0; run < runs; run += 1) {
      const start = performance.now();
      [, , raw] = await this.loaded.infer(input);
      took.push(performance.now() - start);
    }
    if (input.delete) input.delete();
    const offset = preprocess.label_offset;
    const chosen = Array.from(raw.slice(offset, offset + classes.length));
    const decoded = (value) => Math.fround(Math.fround(value - sink.zeroPoint) * Math.fround(sink.scale));
    return {
      logits: sink.dtype === "float32" ? chosen : chosen.map(decoded),
      milliseconds: middle(took),
    };
  }
}

function evenRound(value) {
  const whole = Math.floor(value);
  return value - whole === 0.5 ? whole + Math.abs(whole % 2) : Math.round(value);
}
