"""Search spaces by name, or from a user's own file."""

import importlib.util
import pkgutil
from pathlib import Path

from fer_ray.errors import UserError, nearest
from fer_ray.space import Search, Space


def space_names() -> list[str]:
    """Names of the installed spaces."""
    import fer_ray.search_spaces

    return [module.name for module in pkgutil.iter_modules(fer_ray.search_spaces.__path__)]


def load_space(name: str) -> Space | Search:
    """A space by name, or from a user's own .py file that defines SPACE. Raises UserError otherwise."""
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"--space {name}: no such file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # a user's own code may raise anything
            raise UserError(f"--space {name}: {type(error).__name__}: {error}") from error
    elif name in space_names():
        module = importlib.import_module(f"fer_ray.search_spaces.{name}")
    else:
        raise UserError(f"--space: no space or .py file {name!r}{nearest(name, space_names())}")
    space = getattr(module, "SPACE", None)
    if not isinstance(space, Space | Search):
        raise UserError(f"--space {name}: expected the file to define SPACE, a Space or a Search of fer_ray.space")
    return space
