"""Optimizers with the parameter groups that the field uses."""

from torch import nn, optim

from fer_ray.config import OptimizerConfig


def build(model: nn.Module, config: OptimizerConfig) -> optim.Optimizer:
    """A fused optimizer over the model. Weight decay acts on matrices and kernels, not on biases and norms."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=True)
    kind = optim.AdamW if config.name == "adamw" else optim.Adam
    return kind(groups, lr=config.learning_rate, fused=True)
