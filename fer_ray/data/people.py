"""Who is on a picture, where file names tell: faces of one person belong on one side of a split."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

PATTERNS = {
    # S005_001_00000011.png: subject, sequence, frame (Lucey et al. 2010, README of the release)
    "CK+": re.compile(r"(s\d{3})_\d{3}_\d{8}\..+"),
    # AF01ANS.JPG: session A or B, sex, number, expression, angle (Lundqvist et al. 1998, kdef.se)
    "KDEF": re.compile(r"[ab]([fm]\d{2})(?:af|an|di|ha|ne|sa|su)(?:fl|hl|s|hr|fr)\..+"),
    # KA.AN1.39.tiff: initials, expression and repetition, number (Lyons et al. 1998, README of the release)
    "JAFFE": re.compile(r"([a-z]{2})\.(?:an|di|fe|ha|ne|sa|su)\d\.\d+\..+"),
}
"""Data set -> what its file names look like in lower case; the first group is the person."""


def people_of(names: Sequence[str]) -> np.ndarray | None:
    """Persons, from the names of image files.

    Args:
        names: file names, or paths with `/` of which the last part counts.

    Returns:
        int32 [n], 0, 1, ... in the order of their names, or None unless every name fits one of PATTERNS.
    """
    files = [PurePosixPath(name).name.casefold() for name in names]
    for pattern in PATTERNS.values():
        matches = [pattern.fullmatch(file) for file in files]
        if files and all(matches):
            people = [match[1] for match in matches if match]
            return np.unique(people, return_inverse=True)[1].astype(np.int32)
    return None
