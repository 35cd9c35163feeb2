"""Every architecture by name. The names are plain data: help and typo checks import no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fer_ray.config import ModelConfig
from fer_ray.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """Where a network comes from.

    Attributes:
        library: "timm" or "torchvision".
        key: its name there.
        gmac: billions of multiply-adds of one forward pass at 224 px.
        from_scratch: options of timm that change no parameter's shape, taken when no weights are loaded.
    """

    library: str
    key: str
    gmac: float
    from_scratch: Mapping[str, Any] = field(default_factory=dict)


# A strided 1x1 shortcut drops three pixels of four. At 32 to 64 px little is left after five of them, so that an
# untrained ResNet is nearly blind; averaging first (ResNet-D, He et al. 2019, arXiv:1812.01187) keeps all four.
_AVERAGING = {"avg_down": True}

ZOO = {
    "ResNet18": Architecture("timm", "resnet18", 1.82, _AVERAGING),
    "ResNet50": Architecture("timm", "resnet50", 4.13, _AVERAGING),
    "EfficientNetB0": Architecture("timm", "efficientnet_b0", 0.40),
    "MobileNetV3-Large": Architecture("timm", "mobilenetv3_large_100", 0.23),
    "ShuffleNetV2-x1.0": Architecture("torchvision", "shufflenet_v2_x1_0", 0.15),
    "DenseNet121": Architecture("timm", "densenet121", 2.87),
    "ConvNeXt-Tiny": Architecture("timm", "convnext_tiny", 4.46),
}
"""The seven networks of the ratio study. Which MobileNetV3 and ShuffleNetV2 it used is not stated; these two fit the
parameter counts that it prints."""


def check_name(name: str) -> str:
    """`name` itself. Raises UserError with the nearest known name if the zoo has no such architecture."""
    if name not in ZOO:
        raise UserError(f"model.name: no architecture {name!r} in the zoo{nearest(name, ZOO)}")
    return name


def build(config: ModelConfig, num_classes: int) -> "nn.Module":
    """A network for float [B, 3, S, S] input with `num_classes` logits, initialised from torch's global generator.

    The classifier starts at zero, so that the first loss is log(num_classes) whatever the library's habit; from
    scratch, residual blocks start as the identity (zero-init of their last norm, Goyal et al. 2017,
    arXiv:1706.02677), which timm does for ResNets alone.

    Raises UserError on an unknown name, or when pretrained weights cannot be fetched.
    """
    from torch import nn

    architecture = ZOO[check_name(config.name)]
    pretrained = config.weights == "imagenet"
    try:
        if architecture.library == "timm":
            import timm

            options = {} if pretrained else architecture.from_scratch
            model = timm.create_model(
                architecture.key, pretrained=pretrained, num_classes=num_classes, drop_rate=config.dropout, **options
            )
        else:
            import torchvision

            model = torchvision.models.get_model(architecture.key, weights="DEFAULT" if pretrained else None)
            model.fc = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(model.fc.in_features, num_classes))
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise UserError(
            f"model.weights=imagenet: the weights of {config.name} could not be fetched ({error}). "
            "Connect to a network once, so that they are cached, or train from scratch with --weights none"
        ) from error
    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    if not pretrained:
        for block in model.modules():
            if getattr(block, "has_skip", False):  # timm's inverted residual blocks
                last_norm = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
                nn.init.zeros_(last_norm.weight)
    return model
