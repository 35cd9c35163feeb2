import numpy as np
import pytest

from fer_ray.data.people import people_of


@pytest.mark.parametrize(
    ("names", "people"),
    [
        (["S005_001_00000011.png", "S010_002_00000014.png", "S005_003_00000001.png"], [0, 1, 0]),
        # The two sessions of a person of KDEF are one person; a woman and a man of one number are two.
        (["AF01ANS.JPG", "BF01HAHL.JPG", "AM01ANS.JPG", "AF02SUFR.jpg"], [0, 0, 2, 1]),
        (["KA.AN1.39.tiff", "KM.NE2.5.tiff", "KA.HA3.31.tiff"], [0, 1, 0]),
        (["train/happy/S005_001_00000011.png", "test/sad/S005_004_00000011.png"], [0, 0]),
    ],
    ids=["CK+", "KDEF", "JAFFE", "paths"],
)
def test_file_names_tell_people_apart(names, people):
    found = people_of(names)
    assert found.tolist() == people
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    "names",
    [
        ["Training_3908.jpg", "PublicTest_1.jpg"],
        ["0.jpg", "1.jpg"],
        ["S005_001_00000011.png", "AF01ANS.JPG"],
        ["S005_001_00000011.png", "another.png"],
        ["AF01XXS.JPG"],
        [],
    ],
)
def test_names_that_do_not_all_fit_tell_nothing(names):
    assert people_of(names) is None
