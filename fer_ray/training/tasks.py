"""What a run learns: expression classes, valence and arousal, or both; its targets, loss, answers and score.

The network's outputs are one tensor [B, O]: C columns of class logits, then valence and arousal in [-1, 1].
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fer_ray import metrics
from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.training import losses

AFFECT = ("valence", "arousal")
"""The last columns of the outputs of the tasks affect and multitask."""


@dataclass(frozen=True)
class Answers:
    """What a network says about n images.

    Attributes:
        probabilities: float32 [n, C], or None without classes.
        affect: float32 [n, 2], valence and arousal in [-1, 1], or None without them.
    """

    probabilities: np.ndarray | None
    affect: np.ndarray | None

    @classmethod
    def mean(cls, answers: "Sequence[Answers]") -> "Answers":
        """The average of answers about the same images: to test-time views, or of an ensemble's networks."""
        return cls(_mean([one.probabilities for one in answers]), _mean([one.affect for one in answers]))

    def as_dict(self) -> dict[str, torch.Tensor | None]:
        """Tensors, for a checkpoint."""
        values = {"probabilities": self.probabilities, "affect": self.affect}
        return {name: None if value is None else torch.tensor(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, torch.Tensor | None]) -> "Answers":
        """What `as_dict` was made of."""
        return cls(**{name: None if value is None else value.numpy() for name, value in values.items()})

    @property
    def are_finite(self) -> bool:
        """Whether every number is."""
        return all(value is None or bool(np.isfinite(value).all()) for value in (self.probabilities, self.affect))


@dataclass(frozen=True)
class Task:
    """A task as `build` makes it from a config.

    Attributes:
        num_classes: C; 0 for the task affect.
        num_affect: 2, or 0 for the task expression.
        class_loss, affect_loss: as `losses.Loss` says; affect_loss is of valence or arousal alone.
        weights: of the losses of classes, valence and arousal.
        selection_metric: the validation figure that chooses the epoch.
        takes_distributions: whether classes are always handed to the loss as distributions, as mixed images need.
    """

    num_classes: int
    num_affect: int
    class_loss: losses.Loss
    affect_loss: losses.Loss
    weights: tuple[float, float, float]
    selection_metric: str
    takes_distributions: bool

    @property
    def num_outputs(self) -> int:
        """O, the columns of the outputs."""
        return self.num_classes + self.num_affect

    def targets(
        self,
        labels: np.ndarray,
        soft: np.ndarray | None = None,
        valence: np.ndarray | None = None,
        arousal: np.ndarray | None = None,
    ) -> torch.Tensor:
        """What `loss` compares the outputs with.

        Args:
            labels: int64 [n], -1 for an image without a class, which is not to be trained on.
            soft: float32 [n, C], distributions over the classes that take the place of the labels.
            valence, arousal: float32 [n], NaN where unknown; needed by the tasks affect and multitask.

        Returns: the labels, int64 [n], where hard labels are all there is; else float32 [n, C + num_affect], one-hot
        or soft classes (zeros for -1), then valence and arousal.

        Raises UserError where the task needs valence and arousal and there are none.
        """
        if not self.num_affect and soft is None and not self.takes_distributions:
            return torch.from_numpy(labels.astype(np.int64))
        columns = []
        if self.num_classes:
            one_hot = np.eye(self.num_classes + 1, self.num_classes, dtype=np.float32)
            columns.append(one_hot[labels] if soft is None else soft.astype(np.float32))
        if self.num_affect:
            for name, values in zip(AFFECT, (valence, arousal), strict=True):
                if values is None or np.isnan(values).all():
                    raise UserError(
                        f"task.name: learns {name}, and the faces have none; expected data with valence and arousal "
                        "(an AffectNet-style folder, such columns in a .parquet, or demo), or task.name=expression"
                    )
                columns.append(values.astype(np.float32)[:, None])
        return torch.from_numpy(np.concatenate(columns, axis=1))

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The training loss of a batch, a scalar.

        Args:
            outputs: float32 [B, C + num_affect].
            target: rows of `targets`, or mixtures of them.
        """
        if not self.num_affect:
            return self.class_loss(outputs, target)
        c = self.num_classes
        total = self._affect_loss(outputs[:, c:], target[:, c:])
        if c:
            total = total + self.weights[0] * self.class_loss(outputs[:, :c], target[:, :c])
        return total

    def split(self, outputs: np.ndarray) -> Answers:
        """Answers from outputs, float32 [n, C + num_affect]: softmax over the class columns, the rest as it is."""
        c = self.num_classes
        logits = torch.from_numpy(np.ascontiguousarray(outputs[:, :c]))
        return Answers(logits.softmax(1).numpy() if c else None, outputs[:, c:] if self.num_affect else None)

    def summary(
        self, labels: np.ndarray, valence: np.ndarray | None, arousal: np.ndarray | None, answers: Answers
    ) -> dict[str, float]:
        """Figures of validation: loss; accuracy and macro_f1 with classes; ccc and mae, means of both, with affect.

        The loss is the log loss of the classes, and with affect the affect loss of all n images, weighted as in
        training. Smoothing, class weights and focusing are left out, so that losses of such runs can be compared.
        What is undefined is left out. Where an answer is not finite, all there is is a loss that is not either.
        """
        if not answers.are_finite:
            return {"loss": math.nan}
        loss = 0.0
        figures: dict[str, float | None] = {}
        if (probabilities := answers.probabilities) is not None:
            matrix = metrics.confusion_matrix(labels, probabilities.argmax(1), self.num_classes)
            log_loss = metrics.log_loss(labels, probabilities)
            assert log_loss is not None
            loss = self.weights[0] * log_loss
            figures |= {"accuracy": metrics.accuracy(matrix), "macro_f1": metrics.macro_f1(matrix)}
        if answers.affect is not None:
            assert valence is not None
            assert arousal is not None
            true = np.stack([valence, arousal], axis=1).astype(np.float32)
            loss += self._affect_loss(torch.from_numpy(answers.affect), torch.from_numpy(true)).item()
            agreement = metrics.affect_metrics(true, answers.affect)
            figures |= {name: agreement[name] for name in ("ccc", "mae")}
        return {"loss": loss, **{name: value for name, value in figures.items() if value is not None}}

    def score(self, summary: Mapping[str, float]) -> float:
        """What chooses the epoch: the selection metric, its sign turned where less is better, so that higher is better.

        An undefined value is lower than all others, and finite, so that a first epoch can always be chosen.
        """
        value = summary.get(self.selection_metric)
        if value is None:
            return -sys.float_info.max
        return -value if self.selection_metric in ("loss", "mae") else value

    def _affect_loss(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        valence, arousal = (self.affect_loss(predicted[:, i], target[:, i]) for i in range(2))
        return self.weights[1] * valence + self.weights[2] * arousal


def build(config: RunConfig, classes: tuple[str, ...], train_class_counts: np.ndarray) -> Task:
    """The task of a run.

    Args:
        classes: the names of the data's classes.
        train_class_counts: int64 [C], training images of each class. One without any has weight 0.

    Raises UserError on settings that do not go together.
    """
    name = config.task.name
    mixes = config.augmentation.mixup_alpha > 0 or config.augmentation.cutmix_alpha > 0
    _check(config, mixes)
    class_weights = None
    if config.task.class_weights == "inverse":
        counts = torch.from_numpy(np.asarray(train_class_counts, dtype=np.float32))
        class_weights = torch.where(counts > 0, counts.sum() / (len(classes) * counts), 0.0)
    # Without classes the loss is the mean of valence's and arousal's.
    weights = {
        "expression": (1.0, 0.0, 0.0),
        "affect": (0.0, 0.5, 0.5),
        "multitask": (config.task.expression_weight, config.task.valence_weight, config.task.arousal_weight),
    }[name]
    selection_metric = config.training.selection_metric
    return Task(
        num_classes=0 if name == "affect" else len(classes),
        num_affect=0 if name == "expression" else len(AFFECT),
        class_loss=losses.build(config, class_weights),
        affect_loss=losses.AFFECT_LOSSES[config.task.affect_loss],
        weights=weights,
        selection_metric="ccc" if name == "affect" and selection_metric == "macro_f1" else selection_metric,
        takes_distributions=mixes,
    )


def _mean(values: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [value for value in values if value is not None]
    return np.stack(known).mean(axis=0, dtype=np.float64).astype(np.float32) if known else None


def _check(config: RunConfig, mixes: bool) -> None:
    name, metric = config.task.name, config.training.selection_metric
    if name == "expression" and metric in ("ccc", "mae"):
        raise UserError(
            f"training.selection_metric: {metric!r} is a figure of valence and arousal, which task.name=expression "
            "does not learn; expected macro_f1, accuracy or loss, or task.name=multitask"
        )
    if name == "affect" and metric == "accuracy":
        raise UserError(
            "training.selection_metric: 'accuracy' is a figure of classes, which task.name=affect does not learn; "
            "expected ccc, mae or loss, or task.name=multitask"
        )
    if config.data.votes == "multi_target" and name != "affect":
        others = {
            "task.classification_loss=focal": config.task.classification_loss == "focal",
            "task.class_weights=inverse": config.task.class_weights == "inverse",
            "augmentation.mixup_alpha or cutmix_alpha": mixes,
        }
        for other, is_set in others.items():
            if is_set:
                raise UserError(
                    f"data.votes: multi_target has a loss of its own, which {other} does not go with; leave that out, "
                    "or train towards data.votes=probability"
                )
