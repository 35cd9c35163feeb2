"""Damaged and hostile files for every reader: whole ones in their real formats, and what can happen to them.

`make(seed, number, folder)` writes case `number` of a campaign. Everything is drawn from seed and number.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from mutations.archives import escaping, linked_archive, other_method
from mutations.bombs import image_bomb, image_bombs, parquet_bomb, parquet_bombs, pickle_bomb, zip_bomb, zip_bombs
from mutations.contents import nested, odd_columns, odd_values, other_encoding, program
from mutations.damage import BYTES
from mutations.files import Mutation, packed, write
from mutations.names import loops, renamed, special_file
from mutations.seeds import SEEDS
from mutations.sizes import oversized

__all__ = ["SEEDS", "Case", "image_bombs", "make", "packed", "parquet_bombs", "write", "zip_bombs"]

SHARES = {"folder": 5, "zip": 4, "csv": 2, "fer_plus": 2, "parquet": 4, "affectnet": 3, "pickle": 4, "sheets": 2}
"""How often a kind is drawn; others once."""

SPECIAL: dict[str, tuple[Mutation, ...]] = {
    "folder": (oversized, oversized, renamed, special_file, loops, image_bomb),
    "zip": (oversized, oversized, renamed, zip_bomb, other_method, escaping, linked_archive, image_bomb),
    "csv": (oversized, other_encoding),
    "fer_plus": (oversized, other_encoding),
    "parquet": (oversized, odd_columns, odd_columns, parquet_bomb),
    "affectnet": (oversized, renamed, special_file, odd_values, odd_values, image_bomb),
    "pickle": (oversized, program, program, pickle_bomb),
    "networks": (oversized, other_encoding, nested, program, pickle_bomb),
    "sheets": (oversized, renamed, special_file, other_encoding, nested, image_bomb),
    "trial": (oversized, other_encoding, nested, special_file),
    "config": (oversized, other_encoding, nested),
}


@dataclass(frozen=True)
class Case:
    """A case on disk.

    Attributes:
        kind: a key of SEEDS.
        mutation: what was done.
        target: the path that a user passes.
        paths: every file of the case, some of them links or pipes; the folder where these name others.
    """

    kind: str
    mutation: str
    target: Path
    paths: tuple[Path, ...]


def make(seed: int, number: int, folder: Path) -> Case:
    """Writes a case into `folder`, which is made."""
    rng = random.Random(f"{seed} {number}")
    kinds = [kind for kind in SEEDS for _ in range(SHARES.get(kind, 1))]
    kind = kinds[number % len(kinds)]
    whole, target = SEEDS[kind]
    files = whole(rng)
    if kind == "zip" and rng.random() < 0.6:
        files = {target: packed(files)}
    usable = [mutation for mutation in SPECIAL[kind] if target not in files or mutation not in (renamed, escaping)]
    if rng.random() < 0.5:
        mutation = rng.choice(usable)
        name, files = mutation.__name__, mutation(rng, files)
    else:
        damage = rng.choice(BYTES)
        name, broken = damage.__name__, rng.choice([name for name, data in files.items() if data])
        files[broken] = damage(rng, files[broken])
    if kind == "zip" and target not in files:
        files = {target: packed(files)}
    paths = write(folder, files)
    return Case(
        kind, name, folder / target, (*paths, folder, Path("/dev/zero")) if kind == "networks" else tuple(paths)
    )
