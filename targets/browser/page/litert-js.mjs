// A .tflite file in LiteRT.js.

import { Tensor, loadAndCompile, loadLiteRt } from "/litertjs-core/dist/index.js";

// A page loads the runtime once, for all of its models.
let runtime;

export async function load(file, { device, threads, outputIndex }) {
  runtime ??= loadLiteRt("/litertjs-core/wasm/", { threads: threads > 1 });
  await runtime;
  const model = await loadAndCompile(file, {
    accelerator: device,
    cpuOptions: { numThreads: threads },
    gpuOptions: { precision: "fp32" },
  });
  return {
    // A browser without JSPI falls back to wasm for the whole model, which only its options show.
    accelerated: model.isFullyAccelerated && model.options.accelerator === device,
    input: (_type, shape, values) => Tensor.fromTypedArray(values, shape),
    infer: async (tensor) => {
      const answers = await model.run([tensor]);
      const answer = answers[outputIndex];
      const values = await answer.data();
      const { dtype, layout } = answer.type;
      for (const each of answers) each.delete();
      return [dtype, [...layout.dimensions], values];
    },
  };
}
