"""Evaluation: from a model, examples and attacks to a record; metrics are pure functions of records."""

from awnet.evaluation.metrics import accuracy, auc, roc, w_robust, worst_case
from awnet.evaluation.record import Members, Record, Result, Samples

__all__ = ["Members", "Record", "Result", "Samples", "accuracy", "auc", "roc", "w_robust", "worst_case"]
