"""Detection: telling attacked images from clean ones by a score, and at which rate that is wrong."""

from awnet.detection.detector import DETECTORS, Detector, DetectorConfig, Known
from awnet.detection.feature_squeezing import FeatureSqueezing
from awnet.detection.guarded import Guarded
from awnet.detection.lid import LID
from awnet.detection.lng import LNG
from awnet.detection.mahalanobis import Mahalanobis
from awnet.detection.max_softmax import MaxSoftmax
from awnet.detection.nnif import NNIF
from awnet.detection.own_decision import OwnDecision

__all__ = [
    "DETECTORS",
    "LID",
    "LNG",
    "NNIF",
    "Detector",
    "DetectorConfig",
    "FeatureSqueezing",
    "Guarded",
    "Known",
    "Mahalanobis",
    "MaxSoftmax",
    "OwnDecision",
]
