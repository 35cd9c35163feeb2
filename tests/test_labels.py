"""Expression names: one spelling for each, one order, and classes of two domains meeting by name."""

import pytest

from fer_ray.errors import UserError
from fer_ray.labels import (
    ALIASES,
    CANONICAL_ORDER,
    FER2013,
    SETS,
    canonical,
    common_classes,
    in_order,
    map_to,
    positions,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("anger", "angry"),
        ("Happiness", "happy"),
        (" SADNESS\n", "sad"),
        ("Surprised", "surprise"),
        ("fearful", "fear"),
        ("happy", "happy"),
        ("Drowsy", "drowsy"),
    ],
)
def test_spellings_of_other_data_sets_become_the_names_of_fer2013(name: str, expected: str) -> None:
    assert canonical(name) == expected


def test_every_alias_leads_to_a_known_expression_in_one_step() -> None:
    assert set(ALIASES.values()) <= set(CANONICAL_ORDER)
    assert not set(ALIASES) & set(CANONICAL_ORDER)
    assert all(name == name.strip().casefold() for name in ALIASES)


def test_fer2013_keeps_the_numbers_of_its_csv() -> None:
    # A reader that sorts folder names would put neutral at 4.
    assert dict(enumerate(FER2013)) == {
        0: "angry",
        1: "disgust",
        2: "fear",
        3: "happy",
        4: "sad",
        5: "surprise",
        6: "neutral",
    }


def test_order_does_not_depend_on_spelling_or_on_how_folders_sort() -> None:
    folders = sorted(["Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise"])
    assert in_order(folders) == FER2013
    assert in_order(reversed(FER2013)) == FER2013


def test_contempt_comes_after_the_seven_and_unknown_names_last_by_name() -> None:
    assert in_order(["zeal", "contempt", "neutral", "boredom"]) == ("neutral", "contempt", "boredom", "zeal")


def test_two_spellings_of_one_expression_are_one_class() -> None:
    assert in_order(["anger", "angry", "Angry "]) == ("angry",)


def test_domains_with_the_same_classes_in_other_words_are_the_same() -> None:
    assert common_classes({"real": ["angry", "happy"], "synthetic": ["happy", "angry"]}, "same") == ("angry", "happy")


def test_different_classes_are_refused_with_the_difference_named() -> None:
    with pytest.raises(UserError, match=r"only real: fear; only synthetic: contempt.*--classes common"):
        common_classes({"real": ["happy", "sad", "fear"], "synthetic": ["happy", "sad", "contempt"]}, "same")


def test_common_keeps_the_shared_classes_in_canonical_order() -> None:
    assert common_classes({"real": FER2013, "synthetic": ["neutral", "contempt", "happy"]}, "common") == (
        "happy",
        "neutral",
    )


@pytest.mark.parametrize("synthetic", [["happy"], ["contempt"], []])
def test_fewer_than_two_shared_classes_are_no_task(synthetic: list[str]) -> None:
    with pytest.raises(UserError, match="at least 2 are needed"):
        common_classes({"real": FER2013, "synthetic": synthetic}, "common")


def test_affectnet_columns_in_the_order_of_the_emotieff_models() -> None:
    # As the EmotiEff library states it.
    assert positions(SETS["affectnet8"], SETS["emotieff8"]) == [5, 4, 6, 7, 3, 2, 0, 1]


def test_every_label_set_has_known_names_once() -> None:
    for names in SETS.values():
        assert set(names) <= set(CANONICAL_ORDER)
        assert len(set(names)) == len(names)


def test_seven_classes_become_four_by_name_and_say_so() -> None:
    label_map = map_to(FER2013, "fer4")
    assert label_map.classes == ("angry", "happy", "sad", "neutral")
    assert label_map.merged == {"disgust": "angry", "fear": "sad", "surprise": "neutral"}
    assert label_map.notes() == ["disgust counts as angry, fear counts as sad, surprise counts as neutral"]


def test_eight_classes_lose_contempt_in_a_set_of_seven() -> None:
    label_map = map_to(SETS["affectnet8"], "emotieff7")
    assert (label_map.dropped, label_map.missing, label_map.merged) == (("contempt",), (), {})
    assert label_map.classes == SETS["emotieff7"]
    assert label_map.notes() == ["left out, as the label set has no such class: contempt"]


def test_a_class_that_the_data_lack_is_missing_and_not_invented() -> None:
    label_map = map_to(FER2013, "affectnet8")
    assert label_map.missing == ("contempt",)
    assert "contempt" not in label_map.classes
    assert label_map.notes() == ["not in the data: contempt"]


def test_data_without_expressions_are_refused_with_both_lists() -> None:
    with pytest.raises(UserError, match=r"classes cat, dog share 0 with label set fer7 \(angry, .*at least 2"):
        map_to(("cat", "dog"), "fer7")
