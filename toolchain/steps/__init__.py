"""The steps that a recipe is made of, one a file: each says what it takes, and refuses what cannot be."""

from toolchain.steps.distill import Distill as Distill
from toolchain.steps.equalize import Equalize as Equalize
from toolchain.steps.prune import Prune as Prune
from toolchain.steps.qat import Qat as Qat
from toolchain.steps.quantize import Calibration as Calibration
from toolchain.steps.quantize import Quantize as Quantize
from toolchain.steps.quantize import Scheme as Scheme
