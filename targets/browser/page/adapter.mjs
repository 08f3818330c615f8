// The GPU that the browser offers to WebGPU: { name, software }, or null. software: whether it is one in software, which
// gives answers and no speed; true as well where the browser does not say.
export async function adapter() {
  const found = await navigator.gpu?.requestAdapter();
  if (!found) return null;
  const { vendor, architecture, device, description, isFallbackAdapter } = found.info;
  const name = description || [vendor, architecture, device].filter(Boolean).join(" ");
  return { name, software: (isFallbackAdapter ?? true) || /swiftshader|llvmpipe|lavapipe/i.test(name) };
}
