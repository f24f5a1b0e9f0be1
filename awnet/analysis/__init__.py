"""Analysis: what training does to a network's filters, and what the signals of an AW-Net do to them in turn."""

from awnet.analysis.distributions import density, moments, wasserstein
from awnet.analysis.effective_filters import effective_filters
from awnet.analysis.filter_means import filter_means
from awnet.analysis.first_order import first_order
from awnet.analysis.survival import survival

__all__ = ["density", "effective_filters", "filter_means", "first_order", "moments", "survival", "wasserstein"]
