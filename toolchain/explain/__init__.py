"""Why a quantized file gives other answers: the error of each layer, and what still runs in float."""
