"""Recipes: functions that return complete experiments. Importing this package registers them all.

`paper` has the systems of the paper at every scale, `cifar10` and `digits` those of this project's own pages.
"""

from awnet.recipes import cifar10, digits, paper
from awnet.recipes.scale import SCALES, Scale

__all__ = ["SCALES", "Scale", "cifar10", "digits", "paper"]
