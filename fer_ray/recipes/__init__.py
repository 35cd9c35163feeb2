"""Recipes: the five systems and the best we know, as configs by name. A module per system, its settings explained."""

import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fer_ray.config import RunConfig
from fer_ray.errors import UserError, nearest

MAX_BYTES = 2**20
"""A config has a few kB."""


@dataclass(frozen=True)
class Recipe:
    """A named config.

    Attributes:
        name: as given to `--recipe`.
        about: where its settings come from, where it differs from its source, and why.
        values: flat config keys; all others are at their defaults.
    """

    name: str
    about: str
    values: Mapping[str, Any]


def names() -> list[str]:
    """Names of the installed recipes."""
    return list(_installed())


def load(name: str) -> Recipe:
    """A recipe by name, or from a .json file of flat config keys or of a trial (its config.json).

    Raises UserError on an unknown name, a damaged file or a value out of bounds.
    """
    if name.endswith(".json"):
        return _read(Path(name))
    found = _installed()
    if name not in found:
        raise UserError(f"--recipe: no recipe or .json file {name!r}{nearest(name, found)}")
    return found[name]


def _installed() -> dict[str, Recipe]:
    found: dict[str, Recipe] = {}
    for info in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{info.name}")
        about = (module.__doc__ or "").strip()
        found |= {name: Recipe(name, about, values) for name, values in module.RECIPES.items()}
    return found


def _read(path: Path) -> Recipe:
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise UserError("expected a JSON file of config keys, such as the config.json of a trial")
        record = json.loads(path.read_bytes())
        flat = {
            key if not isinstance(value, dict) else f"{key}.{name}": inner
            for key, value in record.items()
            for name, inner in (value.items() if isinstance(value, dict) else [(None, value)])
        }
        config = RunConfig.from_flat(flat)
    except OSError as error:
        raise UserError(f"--recipe {path}: {error.strerror}") from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            f"--recipe {path}: expected a JSON object of config keys, such as the config.json of a trial ({error})"
        ) from error
    except UserError as error:
        raise UserError(f"--recipe {path}: {error}") from error
    given = set(flat)
    return Recipe(path.stem, f"read from {path}", {k: v for k, v in config.flat().items() if k in given})
