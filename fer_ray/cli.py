"""What all commands share: flags made from the config, `--set`, nearest names, progress, exit codes.

Exit codes: 0 done, 1 some trials failed, 2 the input is wrong, 130 interrupted.
"""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from fer_ray.config import KEYS, RunConfig, check_key, parse_value
from fer_ray.errors import UserError, nearest, printable

FAILED_TRIALS, USAGE, INTERRUPTED = 1, 2, 130

PROBE_BYTES = 2**20
"""Written to see whether a results folder takes files, and deleted again."""

COMMON_FLAGS = {
    "--data": "data.source",
    "--synthetic": "data.synthetic",
    "--classes": "data.classes",
    "--test-split": "data.test_split",
    "--label-set": "data.label_set",
    "--align": "data.align",
    "--test-data": "data.test_source",
    "--drop-leaks": "data.drop_leaks",
    "--mixing": "data.mixing",
    "--image-size": "data.image_size",
    "--num-train-images": "data.num_train_images",
    "--epochs": "training.epochs",
    "--batch-size": "training.batch_size",
    "--learning-rate": "optimizer.learning_rate",
    "--weights": "model.weights",
    "--device": "runtime.device",
    "--threads": "runtime.threads",
}
"""Flags of what people change most; every other key goes through `--set`."""


class Parser(argparse.ArgumentParser):
    """argparse that answers a typo with the nearest right name."""

    def __init__(self, command: str, description: str, example: str) -> None:
        super().__init__(
            prog=f"python -m fer_ray.{command}",
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Like `parse_args`, but an unknown flag is named before a missing one is asked for."""
        known = [option for action in self._actions for option in action.option_strings]
        for argument in arguments:
            flag = argument.split("=")[0]
            if flag.startswith("--") and flag not in known:
                raise UserError(f"unknown flag {flag}{nearest(flag, known)}")
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        """Raises UserError; `main` prints it."""
        choice = re.match(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice:
            known = [name.strip("' ") for name in choice[3].split(",")]
            raise UserError(f"{choice[1]}: got {choice[2]!r}{nearest(choice[2], known)}")
        raise UserError(f"{message} (see {self.prog} --help)")


def run_subcommand(
    command: str, description: str, example: str, subcommands: Mapping[str, tuple[str, str]], arguments: Sequence[str]
) -> int:
    """Hands a command line to the module of its first word.

    `subcommands` maps a word to the module with its `command(arguments)`, and to what it does, for the help. Returns
    the exit code.
    """
    parser = Parser(command, f"{description} Each has its own --help.", example)
    described = "; ".join(f"{name}: {text}" for name, (_, text) in subcommands.items())
    parser.add_argument("what", metavar="WHAT", choices=list(subcommands), help=described)
    module, _ = subcommands[parser.parse(arguments[:1]).what]
    return importlib.import_module(module).command(arguments[1:])


def add_config_flags(parser: argparse.ArgumentParser, flags: dict[str, str]) -> None:
    """Adds a flag per config key, with the key's description and default as its help, and `--set`."""
    group = parser.add_argument_group("settings of a run")
    for flag, key in flags.items():
        info = KEYS[key]
        if info.annotation is bool:
            group.add_argument(flag, dest=key, action="store_const", const="true", default=None, help=info.description)
            continue
        default = "none" if info.default is None else info.default
        group.add_argument(
            flag, dest=key, metavar="VALUE", default=None, help=f"{info.description} (default: {default})"
        )
    group.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any config key, e.g. optimizer.weight_decay=0.05; may be repeated. Keys: "
        + ", ".join(key for key in KEYS if key not in flags.values()),
    )


def add_strict_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--strict`."""
    parser.add_argument(
        "--strict", action="store_true", help="refuse to start if training images are copies of validation or test ones"
    )


def config_values(arguments: argparse.Namespace, flags: dict[str, str]) -> dict[str, Any]:
    """The config keys that the command line sets, flat. Raises UserError on an unknown key or a bad `--set`."""
    values = {key: parse_value(key, text) for key in flags.values() if (text := getattr(arguments, key)) is not None}
    for setting in arguments.settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise UserError(f"--set {setting!r}: expected KEY=VALUE, e.g. --set optimizer.weight_decay=0.05")
        check_key(key)
        values[key] = parse_value(key, text)
    RunConfig.from_flat(values)
    return values


def number(
    kind: type[int] | type[float] = float,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> Callable[[str], float]:
    """An argparse type: a number within bounds, whose error says what was expected."""
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("at least", least), ("at most", most))
        if bound is not None
    ]
    expected = ("a whole number " if kind is int else "a number ") + " and ".join(bounds)

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}") from None
        inside = (above is None or value > above) and (least is None or value >= least)
        if not inside or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
        return value

    return parse


def split_list(text: str) -> list[str]:
    """`"a, b"` as ["a", "b"]."""
    return [part.strip() for part in text.split(",") if part.strip()]


def seconds(text: str) -> float:
    """An argparse type: `2h30m`, `90m`, `45s` or plain seconds, above 0.

    >>> seconds("2h30m"), seconds("45")
    (9000.0, 45.0)
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().casefold())
    hours, minutes, rest = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + rest
    if total <= 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a time such as 2h30m, 90m or 45s")
    return total


def duration(seconds: float) -> str:
    """Seconds for people: `1 h 05 min`, `3 min 20 s` or `40 s`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def writable_folder(path: Path) -> Path:
    """Makes the folder and tries a write in it. Raises UserError when that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.write_bytes(bytes(PROBE_BYTES))
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to {path} ({error.strerror}); choose another folder with --storage, --out or free space"
        ) from error
    return path


def writable_file(path: Path) -> Path:
    """Checks that a file can be written at `path`, by `--out`. Raises UserError when it cannot."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; name a file in it, e.g. {path / 'faces.parquet'}")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.parent}; make it, or choose another")
    writable_folder(path.parent)
    return path


def stderr_console() -> Console:
    """Where progress and notes go; results go to standard output."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def stdout_console() -> Console:
    """Where results go: as wide as the terminal, and wide enough for the tables where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100)


def exit_code(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Runs a command; what is wrong outside the program becomes a line on stderr and a code, never a traceback."""
    try:
        return command(arguments)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, `head` for one, has seen enough; what Python still holds must not fail on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def main(command: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs a command on the process's arguments and exits with its code."""
    sys.exit(exit_code(command, sys.argv[1:]))
