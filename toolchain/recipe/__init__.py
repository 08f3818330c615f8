"""Recipes, and the steps that they hold."""

from toolchain.compress.distill import Distill as Distill
from toolchain.compress.equalize import Equalize as Equalize
from toolchain.compress.prune.step import Prune as Prune
from toolchain.compress.qat import Qat as Qat
from toolchain.quantize.step import Calibration as Calibration
from toolchain.quantize.step import Quantize as Quantize
from toolchain.recipe.recipe import Recipe as Recipe
from toolchain.recipe.recipe import find as find
from toolchain.recipe.recipe import parse as parse
from toolchain.recipe.recipe import schema as schema
from toolchain.recipe.recipe import shipped as shipped
