"""The rehearsal, which has to find out before the sweep what would fail at its end."""

from pathlib import Path
from typing import Any

import pytest
from conftest import TinyFaces
from designs import BASE, make, search, sources_of, space

from fer_ray.errors import UserError
from fer_ray.space import Search, Space
from fer_ray.training.loop import TrainingFailed
from fer_ray.tuning import preflight

SMALL = BASE | {"model.name": "ShuffleNetV2-x1.0"}
DESIGNS: dict[str, Space | Search] = {
    "axes": space(axes={"data.real_fraction": (0.5, 1.0)}, base=SMALL),
    "variants": space(
        axes={},
        variants={"slow": {"optimizer.learning_rate": 1e-3}, "fast": {"optimizer.learning_rate": 1e-2}},
        base=SMALL,
    ),
    "search": search(),
    "front": search(objectives=("validation_macro_f1", "images_per_second")),
}


@pytest.mark.parametrize(("name", "scheduler"), [*((name, None) for name in DESIGNS), ("search", "pbt")])
def test_a_design_on_own_data_is_rehearsed_up_to_its_dashboard(
    name: str, scheduler: str | None, tiny_faces: TinyFaces, tmp_path: Path
) -> None:
    plan = make(sources_of(tiny_faces), DESIGNS[name], seeds=(0,))
    examples = plan.configs[:2]
    cost = preflight.measure(plan, examples)
    assert set(cost.seconds) == {plan.run_id(config) for config in examples}
    assert min(cost.seconds.values()) > 0
    assert cost.parameters > 1e6
    info = plan.info() | {"scheduler": scheduler}
    assert preflight.rehearse(plan, examples, cost, tmp_path, info) >= 0
    assert list(tmp_path.iterdir()) == []


def test_what_fails_in_its_first_step_is_told_before_the_sweep(
    tiny_faces: TinyFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*arguments: Any, **options: Any) -> None:
        raise TrainingFailed("loss is not finite at step 1")

    monkeypatch.setattr("fer_ray.training.loop.fit", fit)
    plan = make(sources_of(tiny_faces), DESIGNS["axes"], seeds=(0,))
    cost = preflight.Cost({plan.run_id(config): 1.0 for config in plan.configs})
    with pytest.raises(UserError, match="loss is not finite at step 1"):
        preflight.rehearse(plan, plan.configs, cost, tmp_path, plan.info())
