"""`python -m fer_ray.models`: the zoo with parameters, multiply-adds, size and speed measured here."""

from collections.abc import Sequence

from fer_ray import cli
from fer_ray.config import ModelConfig
from fer_ray.models import zoo

CLASSES = 7
BATCH = 16
FLOAT32_BYTES = 4
SIZES = 32, 512
"""Bounds of `--image-size` in pixels, those of `data.image_size`."""


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.models`."""
    parser = cli.Parser(
        "models",
        "List networks: parameters (millions), multiply-adds of an image (GMAC), size of the weights, and images per "
        "second forward on one thread of this machine.",
        "python -m fer_ray.models ResNet18 tf_efficientnet_b0.ns_jft_in1k --image-size 64",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="networks of the zoo or of timm (default: the zoo)")
    parser.add_argument(
        "--image-size", type=cli.number(int, least=SIZES[0], most=SIZES[1]), default=48, help="pixels (default: 48)"
    )
    parser.add_argument("--rounds", type=cli.number(int, least=1), default=5, help="measured rounds (default: 5)")
    parser.add_argument("--no-speed", action="store_true", help="do not measure")
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.models`; returns the exit code."""
    options = parser().parse(arguments)
    names = [zoo.check_name(name) for name in options.names or zoo.ZOO]
    width = max(len(name) for name in names)
    print(f"{options.image_size} px, 3 channels, linear head for {CLASSES} classes, float32")
    if not options.no_speed:
        from fer_ray.bench.timing import print_conditions

        print_conditions(options.rounds)
    speed = "" if options.no_speed else "  images/s, one thread"
    print(f"{'':{width}}  parameters M    GMAC  size MB{speed}")
    for name in names:
        print(
            f"{name:{width}}{_figures(name, options.image_size, 0 if options.no_speed else options.rounds)}", flush=True
        )
    return 0


def _figures(name: str, image_size: int, rounds: int) -> str:
    import torch

    from fer_ray.bench.timing import race, spread
    from fer_ray.models import cost

    network = zoo.build(ModelConfig(name=name), CLASSES, image_size=image_size)
    megabytes = sum(value.numel() for value in network.state_dict().values()) * FLOAT32_BYTES / 1e6
    text = f"  {cost.num_parameters(network) / 1e6:12.2f}  {cost.gmac(network, image_size):6.3f}  {megabytes:7.1f}"
    if not rounds:
        return text
    torch.set_num_threads(1)
    network.eval().to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        seconds = race({name: lambda: network(images)}, rounds)[name]
    return f"{text}  {spread([BATCH / value for value in seconds], 0)}"


if __name__ == "__main__":
    cli.main(command)
