"""A kiosk: whoever draws a character on its page sees what the model reads. Its page is at http://localhost:8000.

`glyphpress snippet model.onnx -o read.py` makes read.py. The device needs both, the model, and not glyphpress itself:
pip install numpy pillow scipy onnxruntime && python kiosk.py [PORT]"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

import read

ANSWERS, ONE_AT_A_TIME = read.opened(), Lock()
PAGE = b"""<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Kiosk</title>
<style>body { font: 2em sans-serif; text-align: center } canvas { border: 1px solid; touch-action: none }</style>
<canvas width="300" height="300"></canvas><p role="status">Draw a character.</p><button>Clear</button>
<script>
const [sheet, said, clear] = ["canvas", "p", "button"].map((name) => document.querySelector(name));
const pen = sheet.getContext("2d");
pen.lineWidth = 18; pen.lineCap = pen.lineJoin = "round";
sheet.onpointerdown = (event) => { sheet.setPointerCapture(event.pointerId); pen.beginPath(); draw(event); };
sheet.onpointermove = (event) => event.buttons && draw(event);
sheet.onpointerup = () => sheet.toBlob(async (picture) => {
  const answer = await (await fetch("/", { method: "POST", body: picture })).json();
  said.textContent = answer.error ?? `${answer.character} (${(100 * answer.sure).toFixed(0)} % sure)`;
});
clear.onclick = () => { pen.clearRect(0, 0, 300, 300); said.textContent = "Draw a character."; };
function draw({ offsetX, offsetY }) { pen.lineTo(offsetX, offsetY); pen.stroke(); }</script>"""


def answer(picture):
    """Return what the model reads in a picture, or why it reads nothing."""
    try:
        likely = read.probabilities(ANSWERS(read.prepared(read.glyph_in(io.BytesIO(picture)))))
    except read.CorruptData as error:
        return {"error": str(error)}
    return {"character": read.CLASSES[likely.argmax()], "sure": float(likely.max())}


class Kiosk(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply("text/html", PAGE)

    def do_POST(self):
        picture = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 1_000_000))
        with ONE_AT_A_TIME:
            self.reply("application/json", json.dumps(answer(picture)).encode())

    def reply(self, kind, content):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8000), Kiosk)
    print(f"http://localhost:{server.server_port}", flush=True)
    server.serve_forever()
