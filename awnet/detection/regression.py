"""The logistic regression that makes one score of several features, as LID, Mahalanobis and NNIF do.

Features are centred and scaled by what was seen, and the strength of the penalty is chosen among ten by three folds. (NNIF's
authors scale to [0, 1], those of Mahalanobis not at all.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from awnet.errors import Mistake
from awnet.types import PerExample

FOLDS = 3
STRENGTHS = np.logspace(-4, 4, 10)


class Regression(nn.Module):
    """Log-odds of clean, linear in the features.

    Args:
        clean, attacked: the features of images of each kind, shapes (n, f) and (m, f).

    Raises:
        Mistake: there are too few images, or a feature is not finite.
    """

    def __init__(self, clean: Tensor, attacked: Tensor) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV

        super().__init__()
        if min(len(clean), len(attacked)) < FOLDS:
            raise Mistake(
                f"a detector's regression needs {FOLDS} clean and {FOLDS} attacked images, got {len(clean)} and "
                f"{len(attacked)}"
            )
        features = torch.cat([clean, attacked]).double()
        if not features.isfinite().all():
            raise Mistake("a detector's features are not finite; does the network give finite logits?")
        centre, scale = features.mean(0), features.std(0).clamp(min=1e-12)
        kind = np.repeat([1, 0], [len(clean), len(attacked)])
        search = GridSearchCV(LogisticRegression(max_iter=20_000), {"C": STRENGTHS}, cv=FOLDS)
        found = search.fit(((features - centre) / scale).cpu().numpy(), kind).best_estimator_
        w = torch.from_numpy(found.coef_[0]).to(features) / scale
        self.register_buffer("w", w.float(), persistent=False)
        self.register_buffer("centre", centre.float(), persistent=False)
        self.bias = float(found.intercept_[0])

    def forward(self, features: Tensor) -> PerExample:
        return (features - self.get_buffer("centre")) @ self.get_buffer("w") + self.bias
