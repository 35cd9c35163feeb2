"""Changes to the first layers of a backbone: input channels, and the resolution that the stem keeps."""

from torch import nn

from fer_ray.errors import UserError

RGB = 3

STEMS: dict[str, tuple[str, str | None]] = {
    "ResNet": ("conv1", "maxpool"),
    "EfficientNet": ("conv_stem", None),
    "MobileNetV3": ("conv_stem", None),
    "DenseNet": ("features.conv0", "features.pool0"),
    "ConvNeXt": ("stem", None),
    "ShuffleNetV2": ("conv1", "maxpool"),
    "TorchvisionEfficientNet": ("features.0", None),
}
"""Family -> its stem, whose convolutions have a stride, and the pooling after it."""

UNSTRIDED = ("VGG", "FourBlockCNN", "ResEmoteNet")
"""Families whose first convolution keeps the resolution anyway."""


def family(backbone: nn.Module) -> str:
    """The class of a backbone; torchvision has an EfficientNet with other names than timm's."""
    name = type(backbone).__name__
    return f"Torchvision{name}" if name == "EfficientNet" and hasattr(backbone, "features") else name


def keep_resolution(backbone: nn.Module, name: str) -> None:
    """Takes the strides out of the stem, and the pooling after it; every map is then larger, and costs more.

    No parameter changes its shape, so that pretrained weights fit. Maps are 2 times as wide for EfficientNet and
    MobileNetV3, 4 times for ResNet, DenseNet, ShuffleNetV2 and ConvNeXt. Raises UserError for `name` if its family
    has no such stem.
    """
    kind = family(backbone)
    if kind not in STEMS:
        reason = (
            f"{name} keeps the resolution in its first layers as it is"
            if kind in UNSTRIDED
            else f"not known for {name} (family {kind}; known are {', '.join(STEMS)})"
        )
        raise UserError(f"model.stem=stride1: {reason}; leave model.stem at standard for it")
    stem, pooling = STEMS[kind]
    for module in backbone.get_submodule(stem).modules():
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
            if module.stride == module.kernel_size:  # patches beside each other (ConvNeXt) have no padding
                module.padding = (module.kernel_size[0] // 2, module.kernel_size[1] // 2)
            module.stride = (1, 1)
    if pooling:
        parent, _, child = pooling.rpartition(".")
        setattr(backbone.get_submodule(parent), child, nn.Identity())


def first_convolution(backbone: nn.Module) -> tuple[str, nn.Conv2d]:
    """The name and the first convolution, the one that sees the image. Raises UserError where there is none."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise UserError(f"model.name: {family(backbone)} has no convolution that sees the image; choose another network")


def take_one_channel(backbone: nn.Module) -> None:
    """Sums the kernels of the three input channels into one: the same outputs for a grey image."""
    _, convolution = first_convolution(backbone)
    if convolution.in_channels != RGB:
        raise UserError(
            f"model.channels=1: the first convolution of {family(backbone)} does not see the image; leave it at 3"
        )
    convolution.in_channels = 1
    convolution.weight = nn.Parameter(convolution.weight.detach().sum(1, keepdim=True))
