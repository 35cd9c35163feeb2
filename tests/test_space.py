"""Spaces: the cells that their axes and variants span."""

from fer_ray.space import Space


def test_cells_are_the_product_of_the_axes_and_the_first_varies_slowest() -> None:
    space = Space(name="s", question="?", axes={"model.name": ("A", "B"), "data.real_fraction": (0.0, 0.5, 1.0)})
    assert [(cell["model.name"], cell["data.real_fraction"]) for cell in space.cells()] == [
        ("A", 0.0),
        ("A", 0.5),
        ("A", 1.0),
        ("B", 0.0),
        ("B", 0.5),
        ("B", 1.0),
    ]


def test_cells_leave_out_seeds_and_base() -> None:
    space = Space(name="s", question="?", axes={"training.epochs": (1,)}, seeds=(0, 1), base={"model.name": "A"})
    assert space.cells() == [{"training.epochs": 1}]


def test_an_axis_without_values_spans_no_cell_and_no_axis_one() -> None:
    assert Space(name="s", question="?", axes={"training.epochs": ()}).cells() == []
    assert Space(name="s", question="?", axes={}).cells() == [{}]


def test_variants_are_several_keys_at_once_and_vary_slower_than_the_axes() -> None:
    variants = {"SGD": {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1}, "AdamW": {}}
    space = Space(name="s", question="?", variants=variants, axes={"optimizer.sam_rho": (0.0, 0.05)})
    assert space.cells() == [
        {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1, "optimizer.sam_rho": 0.0},
        {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1, "optimizer.sam_rho": 0.05},
        {"optimizer.sam_rho": 0.0},
        {"optimizer.sam_rho": 0.05},
    ]
