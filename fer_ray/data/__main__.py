"""`python -m fer_ray.data WHAT`: look at data before training on it."""

from collections.abc import Sequence

from fer_ray import cli

ACTIONS = {
    "inspect": (
        "fer_ray.diagnostics.inspect_command",
        "what a data set holds: counts, sizes, duplicates, unreadable files, a page of faces",
    ),
    "gap": ("fer_ray.diagnostics.gap_command", "how far synthetic faces are from real ones"),
    "cache": ("fer_ray.diagnostics.cache_command", "what the cache of decoded images holds; --verify and --clear"),
}


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.data`; returns the exit code."""
    example = "python -m fer_ray.data inspect fer2013.csv"
    return cli.run_subcommand("data", "Look at data before training on it.", example, ACTIONS, arguments)


if __name__ == "__main__":
    cli.main(command)
