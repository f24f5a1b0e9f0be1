"""Recipes: functions that return complete experiments, one file a data set. Importing this package registers them all."""

from awnet.recipes import cifar10, digits

__all__ = ["cifar10", "digits"]
