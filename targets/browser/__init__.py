"""The browser as a target: onnxruntime-web and LiteRT.js in a headless Chromium."""
