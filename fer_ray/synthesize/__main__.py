"""`python -m fer_ray.synthesize METHOD`: make synthetic faces."""

from collections.abc import Sequence

from fer_ray import cli

METHODS = {
    "ppca": (
        "fer_ray.synthesize.ppca",
        "class-conditional probabilistic PCA of real faces: blurred faces with a visible class, in seconds",
    ),
    "stylegan2": ("fer_ray.synthesize.stylegan2", "images of StyleGAN2-ADA generators, from their official pickles"),
    "sheets": ("fer_ray.synthesize.sheets", "faces cut from sheets of 6x6 generated faces, aligned and checked"),
}


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.synthesize`; returns the exit code."""
    example = "python -m fer_ray.synthesize ppca --help"
    return cli.run_subcommand("synthesize", "Make synthetic faces, ready for --synthetic.", example, METHODS, arguments)


if __name__ == "__main__":
    cli.main(command)
