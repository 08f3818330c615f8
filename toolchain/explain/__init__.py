"""Why a quantized file answers otherwise: the error of each layer, and what still runs in float."""
