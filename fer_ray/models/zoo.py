"""Every architecture by name. The names are plain data: help and typo checks import no torch, unless timm is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fer_ray.config import ModelConfig
from fer_ray.errors import UserError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from fer_ray.models.network import Network

PROBE_SIZE = 224
"""Side in pixels of the image that a network is tried with when the caller does not say how large its images are."""


@dataclass(frozen=True)
class Architecture:
    """Where a network comes from.

    Attributes:
        library: "timm", "torchvision" or "fer_ray".
        key: its name there.
        gmac: billions of multiply-adds of one forward pass at 224 px, with three channels and the standard stem.
        from_scratch: options of timm that change no parameter's shape, taken when no weights are loaded.
    """

    library: str
    key: str
    gmac: float
    from_scratch: Mapping[str, Any] = field(default_factory=dict)


# A strided 1x1 shortcut drops three pixels of four. At 32 to 64 px little is left after five of them, so that an
# untrained ResNet is nearly blind; averaging first (ResNet-D, He et al. 2019, arXiv:1812.01187) keeps all four.
_AVERAGING = {"avg_down": True}

RATIO_STUDY = (
    "ResNet18",
    "ResNet50",
    "EfficientNetB0",
    "MobileNetV3-Large",
    "ShuffleNetV2-x1.0",
    "DenseNet121",
    "ConvNeXt-Tiny",
)
"""The seven networks of the ratio study. Which MobileNetV3 and ShuffleNetV2 it used is not stated; these two fit the
parameter counts that it prints."""

ZOO = {
    "ResNet18": Architecture("timm", "resnet18", 1.81, _AVERAGING),
    "ResNet34": Architecture("timm", "resnet34", 3.66, _AVERAGING),
    "ResNet50": Architecture("timm", "resnet50", 4.09, _AVERAGING),
    "EfficientNetB0": Architecture("timm", "efficientnet_b0", 0.38),
    "EfficientNetV2-S": Architecture("torchvision", "efficientnet_v2_s", 2.85),
    "MobileNetV3-Large": Architecture("timm", "mobilenetv3_large_100", 0.22),
    "MobileNetV3-Small": Architecture("timm", "mobilenetv3_small_100", 0.06),
    "ShuffleNetV2-x1.0": Architecture("torchvision", "shufflenet_v2_x1_0", 0.145),
    "DenseNet121": Architecture("timm", "densenet121", 2.83),
    "ConvNeXt-Tiny": Architecture("timm", "convnext_tiny", 4.45),
    "VGG19-BN": Architecture("torchvision", "vgg19_bn", 19.51),
    "ResNet9": Architecture("fer_ray", "ResNet9", 1.40),
    "FourBlockCNN": Architecture("fer_ray", "FourBlockCNN", 0.74),
    "ResEmoteNet": Architecture("fer_ray", "ResEmoteNet", 4.32),
}
"""The zoo; any other name is timm's. VGG19-BN is its convolutions and their mean, as FER2013's well-known 73 % has it,
without the two layers of 4,096 units."""


def check_name(name: str) -> str:
    """`name` itself. Raises UserError with the nearest name of the zoo or of timm if neither knows it."""
    if name not in ZOO:
        import timm

        # A tag names pretrained weights: tf_efficientnet_b0.ns_jft_in1k.
        if not timm.is_model(name) or ("." in name and name not in timm.list_pretrained()):
            hint = nearest(name, ZOO)
            if "did you mean" not in hint:
                in_timm = nearest(name, [*timm.list_models(), *timm.list_pretrained()])
                hint = in_timm if "did you mean" in in_timm else hint
            raise UserError(f"model.name: no architecture {name!r} in the zoo or in timm{hint}")
    return name


def pretrained_normalization(name: str) -> Literal["imagenet", "half", "unit"]:
    """The input that pretrained weights of a network expect, as `data.normalization` calls it; a third of timm's are
    not ImageNet's.
    """
    if name in ZOO:
        return "imagenet"
    from timm.models import get_pretrained_cfg

    found = get_pretrained_cfg(name)
    mean = found.mean[0] if found is not None else None
    return "unit" if mean == 0 else "half" if mean == 0.5 else "imagenet"


def gmac(name: str) -> float:
    """Billions of multiply-adds of a forward pass at 224 px; counted where the zoo does not know. Raises as `build`."""
    if name in ZOO:
        return ZOO[name].gmac
    import torch

    from fer_ray.models import cost

    with torch.device("meta"):
        return cost.gmac(build(ModelConfig(name=name), 1), PROBE_SIZE)


def build(config: ModelConfig, num_classes: int, num_affect: int = 0, image_size: int | None = None) -> "Network":
    """The network of a run, with its initial weights, from torch's global generator.

    It takes float [B, config.channels, S, S] and gives [B, num_classes + num_affect]; `num_affect` is 0 or 2. The last
    layer starts at zero, so that the first loss is log(num_classes) whatever the library's habit; from scratch,
    residual blocks start as the identity (zero-init of their last norm, Goyal et al. 2017, arXiv:1706.02677), which
    timm does for ResNets alone. With weights from a file, `load_report` of the network tells what was loaded.

    Raises UserError on an unknown name, options that do not fit the network, images of `image_size` pixels that it
    cannot take, or weights that cannot be fetched, read or used.
    """
    check_name(config.name)
    if config.weights in ("none", "imagenet"):
        return _assemble(config, num_classes, num_affect, image_size, from_scratch=config.weights == "none")
    from fer_ray.models import weights

    state = weights.read(config.weights)
    # A file of our own may come from a network that was trained from scratch, with other shortcuts under other names.
    variants = (False, True) if config.name in ZOO and ZOO[config.name].from_scratch else (False,)
    networks = [_assemble(config, num_classes, num_affect, image_size, from_scratch) for from_scratch in variants]
    network = max(networks, key=lambda network: weights.backbone_share(network, state))
    network.load_report = weights.load(network, state, config.weights)
    return network


def restore(
    config: ModelConfig, path: "Path", num_classes: int, num_affect: int = 0, image_size: int | None = None
) -> "Network":
    """The network of a finished run with the weights it left in `path`, all of them; nothing is fetched.

    `config` is the run's own; its `weights` are not looked at. Raises UserError as `build` does, and when the file
    leaves a part of the network open.
    """
    network = build(config.model_copy(update={"weights": str(path)}), num_classes, num_affect, image_size)
    report = network.load_report
    if report is None or not report.is_complete:
        told = "; ".join(report.lines()) if report else "none"
        raise UserError(f"{path}: not the weights of {config.name} with {num_classes} classes: {told}")
    return network


def _assemble(
    config: ModelConfig, num_classes: int, num_affect: int, image_size: int | None, from_scratch: bool
) -> "Network":
    from fer_ray.models import heads, stems
    from fer_ray.models.network import Network

    backbone = _backbone(config, num_classes + num_affect, from_scratch)
    if config.stem == "stride1":
        stems.keep_resolution(backbone, config.name)
    if config.channels == 1:
        stems.take_one_channel(backbone)
    num_features = _probe(backbone, config, image_size or PROBE_SIZE)
    return Network(backbone, heads.build(config, num_features, num_classes, num_affect), num_features)


def _backbone(config: ModelConfig, num_outputs: int, from_scratch: bool) -> "nn.Module":
    """A network without its classifier, for three channels."""
    from torch import nn

    architecture = ZOO.get(config.name, Architecture("timm", config.name, 0.0))
    pretrained = config.weights == "imagenet"
    model: Any
    if architecture.library == "fer_ray":
        if pretrained:
            raise UserError(
                f"model.weights=imagenet: there are no ImageNet weights of {config.name}; "
                "train from scratch with --weights none, or name a file"
            )
        from fer_ray.models.four_block import FourBlockCNN
        from fer_ray.models.resemotenet import ResEmoteNet
        from fer_ray.models.resnet9 import ResNet9

        return {"FourBlockCNN": FourBlockCNN, "ResEmoteNet": ResEmoteNet, "ResNet9": ResNet9}[architecture.key]()
    try:
        if architecture.library == "timm":
            import timm

            # The classifier is made and taken off again, because the weights after it depend on its random draws.
            options = architecture.from_scratch if from_scratch else {}
            model = timm.create_model(architecture.key, pretrained=pretrained, num_classes=num_outputs, **options)
            model.reset_classifier(0)
        else:
            import torchvision

            model = torchvision.models.get_model(architecture.key, weights="DEFAULT" if pretrained else None)
            model.register_module("fc" if hasattr(model, "fc") else "classifier", nn.Identity())
            if hasattr(model, "avgpool"):
                model.avgpool = nn.AdaptiveAvgPool2d(1)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise UserError(
            f"model.weights=imagenet: the weights of {config.name} could not be fetched ({error}). "
            "Connect to a network once, so that they are cached, name a file with --weights, or train from scratch "
            "with --weights none"
        ) from error
    if from_scratch:
        for block in model.modules():
            # The inverted residual blocks of timm and of torchvision.
            if getattr(block, "has_skip", False) or getattr(block, "use_res_connect", False):
                norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
                if norms:
                    nn.init.zeros_(norms[-1].weight)
    return model


def _probe(backbone: "nn.Module", config: ModelConfig, image_size: int) -> int:
    """The number of features, from a blank image. Raises UserError if the backbone cannot take one of that size."""
    import torch

    try:
        with torch.no_grad():
            features: torch.Tensor = backbone.eval()(torch.zeros(1, config.channels, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"data.image_size: {config.name} cannot take images of {image_size} px ({reason}); choose another size, "
            "larger as a rule, or another model.name"
        ) from error
    if features.ndim != 2:
        raise UserError(
            f"model.name: {config.name} gives no feature vector but {list(features.shape[1:])} an image; "
            f"choose another{nearest(config.name, ZOO)}"
        )
    backbone.train()
    return int(features.shape[1])
