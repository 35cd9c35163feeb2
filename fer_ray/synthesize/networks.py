"""Which StyleGAN2-ADA snapshot makes the faces of which class: from flags or a YAML file, checked and loaded."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray import cli
from fer_ray.errors import UserError
from fer_ray.labels import FER2013, canonical

if TYPE_CHECKING:
    from fer_ray.synthesis.stylegan2 import Generator

_MAX_YAML_BYTES = 2**20


@dataclass(frozen=True)
class Source:
    """Where the faces of one class come from.

    Attributes:
        name: the class.
        path: the snapshot.
        label: the class's index in a conditional generator, None for an unconditional one.
        generator: on its device.
    """

    name: str
    path: Path
    label: int | None
    generator: "Generator"


def network_paths(options: argparse.Namespace) -> dict[str | None, Path]:
    """Class -> snapshot; None stands for all classes of a conditional one."""
    if options.networks is not None:
        given: list[tuple[str | None, Path]] = list(_yaml_pairs(options.networks))
        flag = f"--networks {options.networks}"
    else:
        flag = "--network"
        given = []
        for text in options.network:
            name, separator, path = text.partition("=")
            given.append((name, Path(path)) if separator else (None, Path(text)))
    paths: dict[str | None, Path] = {}
    for name, path in given:
        name = None if name is None else _class_name(flag, name)
        if name in paths:
            raise UserError(f"{flag}: {name or 'a conditional snapshot'} is given twice; expected one snapshot each")
        paths[name] = path
    if None in paths and len(paths) > 1:
        raise UserError(
            f"{flag}: {paths[None]} has no class; expected CLASS=PATH for each, or one conditional snapshot"
        )
    if None not in paths and options.classes is not None:
        raise UserError("--classes names the classes of one conditional snapshot; here each snapshot has its class")
    return paths


def _yaml_pairs(path: Path) -> Iterator[tuple[str, Path]]:
    import yaml

    expected = "expected a line `class: path/to/network.pkl` per class"
    try:
        if path.stat().st_size > _MAX_YAML_BYTES:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes; {expected}")
        # Nodes rather than values: repeated keys stay visible, and `no: a.pkl` stays text.
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())}); {expected}") from error
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise UserError(f"{path}: {expected}")
    for key, value in root.value:
        if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
            raise UserError(f"{path}, line {key.start_mark.line + 1}: {expected}")
        if not value.value.isprintable():
            raise UserError(f"{path}, line {key.start_mark.line + 1}: {value.value!r} is no path; {expected}")
        yield key.value, path.parent / value.value


def _class_name(flag: str, name: str) -> str:
    name = canonical(name)
    if not name or "," in name or not name.isprintable():
        raise UserError(f"{flag}: {name!r} is not the name of a class; expected e.g. {FER2013[0]}, without commas")
    return name


def load_sources(paths: dict[str | None, Path], class_list: str | None, device: Any) -> list[Source]:
    """The generators, loaded and checked: all make images of one size and colour."""
    from fer_ray.synthesis.stylegan2 import load_generator

    generators = {name: load_generator(path).to(device) for name, path in paths.items()}
    sizes = {name: (made.img_resolution, made.img_channels) for name, made in generators.items()}
    first = next(iter(paths))
    for name, path in paths.items():
        if sizes[name] != sizes[first]:
            raise UserError(
                f"{path} makes images of {sizes[name][0]} pixels and {sizes[name][1]} channels, {paths[first]} of "
                f"{sizes[first][0]} and {sizes[first][1]}; the size would give the class away, so take equal ones"
            )
    sources = []
    for name, generator in generators.items():
        if name is None:
            names = _conditional_classes(paths[name], generator.c_dim, class_list)
            sources += [Source(made, paths[None], label, generator) for label, made in enumerate(names)]
        elif generator.c_dim:
            raise UserError(
                f"{paths[name]} is conditional, with {generator.c_dim} classes; give it alone: --network {paths[name]} "
                "--classes A,B,..."
            )
        else:
            sources.append(Source(name, paths[name], None, generator))
    return sources


def _conditional_classes(path: Path, count: int, class_list: str | None) -> list[str]:
    if not count:
        raise UserError(f"{path} is not conditional, so its class must be given: --network CLASS={path}")
    example = f"--classes {','.join(FER2013)}" if count == len(FER2013) else "--classes A,B,..."
    if class_list is None:
        raise UserError(
            f"{path} has {count} classes without names; name them in the order of the labels it was trained with, e.g. "
            f"{example}"
        )
    names = [_class_name("--classes", name) for name in cli.split_list(class_list)]
    if len(names) != count or len(set(names)) != count:
        raise UserError(
            f"--classes: got {len(names)} names, {len(set(names))} of them different; {path} has {count} classes"
        )
    return names
