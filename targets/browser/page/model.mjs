// The model in this page (`model`), for targets/browser. Arrays travel as [type, shape, base64], named as numpy does.

const MS = 1e6;
// Shortest first warm-up of a page: for some tenths of a second V8 recompiles, in parallel, what runs often.
const TIERING_MS = 500;

function decoded(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function typed([type, shape, base64]) {
  const kind = globalThis[`${type[0].toUpperCase()}${type.slice(1)}Array`];
  return [type, shape, new kind(decoded(base64).buffer)];
}

function encoded([type, shape, values]) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return [type, shape, btoa(text)];
}

// The smallest measured step of the clock: 5 us in an isolated page, 100 us in any other.
export function resolution() {
  let smallest = Infinity;
  for (let before = performance.now(), steps = 0; steps < 100; ) {
    const now = performance.now();
    if (now === before) continue;
    smallest = Math.min(smallest, now - before);
    before = now;
    steps += 1;
  }
  return smallest;
}

function middle(samples) {
  return [...samples].sort((a, b) => a - b)[samples.length >> 1];
}

export class Model {
  static async open({ runtime, file, ...options }) {
    const { load } = await import(`./${runtime}.mjs`);
    const content = decoded(file);
    const start = performance.now();
    const loaded = await load(content, options);
    globalThis.model = new Model(loaded, (performance.now() - start) * MS);
    return globalThis.model.facts;
  }

  constructor(loaded, loadNs) {
    this.loaded = loaded;
    this.facts = { accelerated: loaded.accelerated, loadNs };
  }

  place(array) {
    this.input = this.loaded.input(...typed(array));
  }

  // The logits, and the nanoseconds that they took.
  async answer() {
    const start = performance.now();
    const answer = await this.loaded.infer(this.input);
    const took = (performance.now() - start) * MS;
    return [encoded(answer), took];
  }

  // Nanoseconds that a call took, each sample the mean of `inner`.
  async time(plan, resolutions) {
    await this.warm(plan.warmup);
    const least = resolutions * resolution();
    // A calibration during other load finds too few calls per sample; its samples are discarded.
    for (let inner = plan.inner || (await this.calibrated(least)); ; inner *= 2) {
      const samples = await this.collected(plan, inner);
      if (plan.inner || middle(samples) * inner >= least * MS) return { samples, inner };
    }
  }

  async warm(calls) {
    const until = this.tiered || !calls ? 0 : performance.now() + TIERING_MS;
    this.tiered ||= calls > 0;
    for (let k = 0; k < calls || performance.now() < until; k += 1) await this.loaded.infer(this.input);
  }

  async calibrated(least) {
    for (let inner = 1; ; inner *= 2) {
      const took = [await this.sample(inner), await this.sample(inner), await this.sample(inner)];
      if (Math.min(...took) >= least) return inner;
    }
  }

  async collected({ minRuns, minSeconds, maxRuns }, inner) {
    const samples = [];
    const until = performance.now() + minSeconds * 1e3;
    while (samples.length < maxRuns) {
      samples.push(((await this.sample(inner)) / inner) * MS);
      if (samples.length >= minRuns && performance.now() >= until) break;
    }
    return samples;
  }

  async sample(inner) {
    const start = performance.now();
    for (let k = 0; k < inner; k += 1) await this.loaded.infer(this.input);
    return performance.now() - start;
  }
}
