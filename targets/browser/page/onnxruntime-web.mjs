// An .onnx file in onnxruntime-web.

// Options of a run that turn its log off.
const QUIET = { logSeverityLevel: 3 };

export async function load(file, { device, threads, input, output }) {
  const ort = await import(`/onnxruntime-web/dist/ort.${device}.bundle.min.mjs`);
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = "/onnxruntime-web/dist/";
  const options = { executionProviders: [device] };
  // The placement of nodes is in the log alone.
  if (device === "webgpu") options.logSeverityLevel = 0;
  const session = await ort.InferenceSession.create(file, options);
  return {
    input: (type, shape, values) => ({ [input]: new ort.Tensor(type, values, shape) }),
    infer: async (feeds) => {
      const answer = (await session.run(feeds, [output], QUIET))[output];
      return [answer.type, answer.dims, answer.data];
    },
  };
}
