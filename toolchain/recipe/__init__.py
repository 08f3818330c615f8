"""Recipes: the steps that a model is pressed by, one a file; each says what it takes and refuses the impossible."""

from toolchain.recipe.distill import Distill as Distill
from toolchain.recipe.equalize import Equalize as Equalize
from toolchain.recipe.prune import Prune as Prune
from toolchain.recipe.qat import Qat as Qat
from toolchain.recipe.quantize import Calibration as Calibration
from toolchain.recipe.quantize import Quantize as Quantize
from toolchain.recipe.quantize import Scheme as Scheme
from toolchain.recipe.recipe import Recipe as Recipe
from toolchain.recipe.recipe import find as find
from toolchain.recipe.recipe import parse as parse
from toolchain.recipe.recipe import schema as schema
from toolchain.recipe.recipe import shipped as shipped
