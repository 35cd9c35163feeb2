"""Losses of the training step: of classes, by config, and of valence or arousal."""

from collections.abc import Callable

import torch
from torch.nn import functional

from fer_ray.config import RunConfig

OTHER_CLASSES = 0.001

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of classes: logits float32 [B, C] and targets, classes int64 [B] or distributions float32 [B, C], to a mean.
Of valence or arousal: predictions and targets float32 [B], NaN where a target is unknown, to a mean."""


def build(config: RunConfig, class_weights: torch.Tensor | None = None) -> Loss:
    """The loss of the classes: cross-entropy or focal with label smoothing, or FER+'s multi-target.

    `class_weights`, float32 [C], make it a weighted mean: each image counts as much as its class.
    """
    if config.data.votes == "multi_target":
        return multi_target
    smoothing = config.training.label_smoothing
    gamma = config.task.focal_gamma if config.task.classification_loss == "focal" else None

    def classification(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        weights = None if class_weights is None else class_weights.to(logits.device)
        if gamma is None:
            return cross_entropy(logits, target, weights, smoothing)
        return focal(logits, target, gamma, weights, smoothing)

    return classification


def cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None, smoothing: float = 0.0
) -> torch.Tensor:
    """Cross-entropy towards classes or distributions, with label smoothing (Szegedy et al. 2016, arXiv:1512.00567).

    With `weights` w, float32 [C], it is the sum of -w_c t_c log p_c over the sum of w_c t_c, t being the target before
    smoothing. torch divides so for classes only, and by B for distributions; here both give the same.
    """
    loss = functional.cross_entropy(logits, target, weight=weights, label_smoothing=smoothing)
    if weights is None or target.ndim == 1:
        return loss
    return loss * len(target) / (target @ weights).sum()


def focal(
    logits: torch.Tensor,
    target: torch.Tensor,
    gamma: float,
    weights: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean of -(1 - p_t)^gamma log p_t over softmax probabilities p (Lin et al. 2017, arXiv:1708.02002, equation 4).

    The paper has hard targets. Towards a distribution t, soft, mixed or smoothed, each class has its own factor: the
    loss is the sum of -t_c (1 - p_c)^gamma log p_c. It is the paper's for one-hot targets and cross-entropy for
    gamma 0. `weights` are its alpha, averaged as in `cross_entropy`.
    """
    num_classes = logits.shape[1]
    if target.ndim == 1:
        target = functional.one_hot(target, num_classes).to(logits.dtype)
    log_p = functional.log_softmax(logits, dim=1)
    # Floored, as the slope of x^gamma at 0 is infinite for gamma below 1.
    factor = (-log_p.expm1()).clamp_min(torch.finfo(log_p.dtype).eps) ** gamma
    terms = -(target * (1 - smoothing) + smoothing / num_classes) * factor * log_p
    if weights is None:
        return terms.sum() / len(target)
    return (terms @ weights).sum() / (target @ weights).sum()


def multi_target(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of -log max_c(t_c p_c) with t_c 1 for the voted classes and .001 for all others: any voted class will do.

    Barsoum et al. 2016, arXiv:1608.01041, section 3.3; the .001 is that of the authors' code.
    """
    weights = torch.where(target > 0, 1.0, OTHER_CLASSES)
    return -(weights.log() + functional.log_softmax(logits, dim=1)).amax(dim=1).mean()


def squared_error(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the known targets; 0, with a gradient of 0, where none is known."""
    known, target = _known(target)
    return ((predicted - target) ** 2 * known).sum() / known.sum().clamp_min(1)


def concordance(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - CCC over the known targets of the batch, 0 to 2 (Lin 1989, Biometrics 45, with his variances over n).

    CCC = 2 cov / (var + var + (mean - mean)^2). A batch in which either side is constant, such as one of a single
    face, has CCC 0: the loss is 1 and its gradient 0. Where no target is known both are 0.
    """
    known, target = _known(target)
    count = known.sum().clamp_min(1)
    mean, target_mean = (predicted * known).sum() / count, (target * known).sum() / count
    centred, target_centred = (predicted - mean) * known, (target - target_mean) * known
    spread = (centred**2 + target_centred**2).sum() / count + (mean - target_mean) ** 2
    covariance = (centred * target_centred).sum() / count
    return known.amax() * (1 - 2 * covariance / spread.clamp_min(torch.finfo(spread.dtype).eps))


def squared_error_and_concordance(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean of `squared_error` and `concordance`."""
    return (squared_error(predicted, target) + concordance(predicted, target)) / 2


AFFECT_LOSSES: dict[str, Loss] = {
    "mse": squared_error,
    "ccc": concordance,
    "mse_ccc": squared_error_and_concordance,
}
"""Losses of valence or arousal by their name in the config."""


def _known(target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """1 where a target is known and 0 elsewhere, and targets with 0 for the unknown; both float32 [B]."""
    return (~target.isnan()).to(target.dtype), target.nan_to_num(nan=0.0)
