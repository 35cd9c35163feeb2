import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fer_ray.config import ModelConfig
from fer_ray.errors import UserError
from fer_ray.models import weights, zoo
from fer_ray.models.network import Network

State = dict[str, torch.Tensor]


def build(path: Path | str, name: str = "ResNet18", num_classes: int = 7, **options: Any) -> Network:
    return zoo.build(ModelConfig(name=name, weights=str(path), **options), num_classes, image_size=32)


def random_like(state: State) -> State:
    """Values of a trained network: none zero, so that what was not loaded shows."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else value
        for name, value in state.items()
    }


@pytest.fixture(scope="module")
def resnet() -> State:
    """A ResNet-18 with 7 classes in torchvision's naming."""
    return random_like(torchvision.models.resnet18(num_classes=7).state_dict())


def assert_backbone(network: Network, state: State) -> None:
    own = network.backbone.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in own.items() if not name.endswith("batches_tracked"))


@pytest.mark.parametrize("wrapper", [None, "model_state_dict", "state_dict", "model", "module"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "model."])
def test_a_state_dict_is_found_wherever_it_is_nested_and_however_it_is_prefixed(
    wrapper: str | None, prefix: str, tmp_path: Path
) -> None:
    state = OrderedDict((prefix + name, torch.ones(2)) for name in ("conv1.weight", "module_list.0.bias"))
    content = {wrapper: state, "epoch": 3, "optimizer_state_dict": {"param_groups": []}, "classes": ["happy"]}
    torch.save(content if wrapper else state, tmp_path / "weights.pth")
    assert list(weights.read(tmp_path / "weights.pth")) == ["conv1.weight", "module_list.0.bias"]


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_torchvision_state_dict_fills_backbone_and_classifier(prefix: str, resnet: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model_state_dict": {f"module.{prefix}{name}": value for name, value in resnet.items()}}, path)
    network = build(path)
    assert_backbone(network, resnet)
    assert torch.equal(network.head[1].weight, resnet["fc.weight"])
    assert network.load_report is not None
    assert network.load_report.is_complete
    assert network.load_report.lines() == ["102 of the network's 102 tensors loaded"]


def test_safetensors_are_read(resnet: State, tmp_path: Path) -> None:
    save_file(resnet, tmp_path / "weights.safetensors")
    network = build(tmp_path / "weights.safetensors")
    assert_backbone(network, resnet)
    assert torch.equal(network.head[1].bias, resnet["fc.bias"])


def test_a_classifier_of_another_size_is_left_out_and_reported(resnet: State, tmp_path: Path) -> None:
    torch.save(resnet, tmp_path / "weights.pt")
    network = build(tmp_path / "weights.pt", num_classes=4)
    assert_backbone(network, resnet)
    assert not network.head[1].weight.any()
    report = network.load_report
    assert report is not None
    assert not report.is_complete
    assert set(report.wrong_shape) == {
        "head.1.weight: file [7, 512], network [4, 512]",
        "head.1.bias: file [7], network [4]",
    }
    assert report.lines()[1].startswith("2 of another shape, so as initialised: head.1.")


def test_the_vggface2_weights_load_as_the_thesis_loads_them(tmp_path: Path) -> None:
    """`state_vggface2_enet0_new.pt`: the state dict of an EfficientNet-B0 whose classifier is the identity."""
    name = "tf_efficientnet_b0.ns_jft_in1k"
    model = timm.create_model(name)
    model.classifier = nn.Identity()
    state = random_like(model.state_dict())
    assert {key.split(".")[0] for key in state} == {"conv_stem", "bn1", "blocks", "conv_head", "bn2"}
    path = tmp_path / "state_vggface2_enet0_new.pt"
    torch.save(state, path)
    network = build(path, name, num_classes=8)
    assert_backbone(network, state)
    report = network.load_report
    assert report is not None
    assert (set(report.missing), report.wrong_shape, report.unexpected) == ({"head.1.weight", "head.1.bias"}, (), ())
    images = torch.randn(2, 3, 64, 64)
    model.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(network.eval().backbone(images), model.eval()(images))


@pytest.mark.parametrize("weighting", ["none", "file"])
def test_a_trials_own_weights_come_back_whole(weighting: str, resnet: State, tmp_path: Path) -> None:
    """Also with the shortcuts of a network that was trained from scratch, which give other outputs."""
    first = tmp_path / "first.pt"
    torch.save(resnet, first)
    config = ModelConfig(name="ResNet18", weights="none" if weighting == "none" else str(first))
    network = zoo.build(config, 7, image_size=32)
    network.load_state_dict(random_like(network.state_dict()))
    path = tmp_path / "best.safetensors"
    save_file(network.state_dict(), path)
    first.unlink()
    restored = zoo.restore(config, path, 7, image_size=32)
    assert list(restored.state_dict()) == list(network.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(restored.eval()(images), network.eval()(images))
    with pytest.raises(
        UserError, match=r"not the weights of ResNet18 with 3 classes: .*head.1.weight: file \[7, 512\]"
    ):
        zoo.restore(config, path, 3, image_size=32)


def test_the_deep_head_of_a_users_own_program_is_taken_layer_by_layer(tmp_path: Path) -> None:
    model = torchvision.models.shufflenet_v2_x1_0()
    model.fc = nn.Sequential(
        *(nn.Dropout(0.3), nn.Linear(1024, 512), nn.ReLU(), nn.BatchNorm1d(512)),
        *(nn.Dropout(0.3), nn.Linear(512, 256), nn.ReLU(), nn.BatchNorm1d(256)),
        *(nn.Dropout(0.15), nn.Linear(256, 7)),
    )
    model.load_state_dict(random_like(model.state_dict()))
    images = torch.randn(2, 3, 32, 32)
    for path in (tmp_path / "model.pth", tmp_path / "model.safetensors"):  # safetensors do not keep the order
        if path.suffix == ".pth":
            torch.save({"model_state_dict": model.state_dict()}, path)
        else:
            save_file(model.state_dict(), path)
        network = build(path, "ShuffleNetV2-x1.0", head="efficientnetv2s-two-phase")
        assert network.load_report is not None
        assert network.load_report.is_complete
        with torch.no_grad():
            torch.testing.assert_close(network.eval()(images), model.eval()(images))


def test_kernels_for_three_channels_are_summed_for_one(resnet: State, tmp_path: Path) -> None:
    torch.save(resnet, tmp_path / "weights.pt")
    network = build(tmp_path / "weights.pt", channels=1)
    torch.testing.assert_close(network.backbone.conv1.weight, resnet["conv1.weight"].sum(1, keepdim=True))
    assert network.load_report is not None
    assert "3 input channels were summed into 1" in network.load_report.lines()[-1]
    grey = {**resnet, "conv1.weight": resnet["conv1.weight"][:, :1].clone()}
    torch.save(grey, tmp_path / "grey.pt")
    with pytest.raises(UserError, match=r"model.channels: got 3, but .*grey.pt is for images of 1 channel.*channels=1"):
        build(tmp_path / "grey.pt")


def test_weights_of_another_network_are_refused_and_nothing_is_loaded(resnet: State, tmp_path: Path) -> None:
    torch.save(resnet, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"has 0% of the backbone's parameters.*has e.g. blocks.*the file e.g. \w+"):
        build(tmp_path / "weights.pt", "FourBlockCNN")
    with pytest.raises(UserError, match=r"has \d+% of .*shapes differ, e.g. backbone.layer1.*the model.name"):
        build(tmp_path / "weights.pt", "ResNet50")
    network = zoo.build(ModelConfig(), 7, image_size=32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match="expected 80% or more"):
        weights.load(network, {"conv1.weight": resnet["conv1.weight"]}, "weights.pt")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_values_that_are_not_finite_are_refused(resnet: State, tmp_path: Path) -> None:
    torch.save({**resnet, "bn1.weight": torch.full((64,), float("nan"))}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"weights.pt: backbone.bn1.weight is not finite"):
        build(tmp_path / "weights.pt")


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_carries_code_is_refused_and_does_not_run(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    content = {"state_dict": {"a": torch.ones(2)}, "x": Malicious(tmp_path / "ran")}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        UserError, match=r"weights.pth is refused: it holds (posix|os|nt).mkdir.*save\(model.state_dict"
    ):
        weights.read(path)
    path.write_bytes(pickle.dumps(content["x"], 2))
    with pytest.raises(UserError, match=r"weights.pth"):
        weights.read(path)
    assert not (tmp_path / "ran").exists()


def test_a_pickled_network_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"it holds torch.nn.modules.container.Sequential .*save the tensors alone"):
        weights.read(tmp_path / "model.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "reversed"])
def test_a_damaged_file_is_a_message(suffix: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {"conv1.weight": torch.ones(8, 3, 3, 3)}
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[: len(data) // 2], "empty": b"", "text": b"accuracy,loss\n1,2\n", "reversed": data[::-1]}[
            kind
        ]
    )
    with pytest.raises(UserError, match=rf"model.weights: .*{re.escape(path.name)}.*damaged"):
        weights.read(path)


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"optimizer": {"lr": 0.1}}, {}, torch.ones(3)])
def test_a_file_without_a_state_dict_is_a_message(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"weights.pt holds no state dict \(found .*\); expected name -> tensor"):
        weights.read(tmp_path / "weights.pt")


def test_a_dict_that_holds_itself_is_a_message(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 1}
    content["model"] = content
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"holds no state dict \(found keys epoch, model\)"):
        weights.read(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("imagenett", r"got 'imagenett', expected none, imagenet, or a file .*did you mean 'imagenet'"),
        ("weights.onnx", r"got 'weights.onnx', expected none, imagenet, or a file \(.pt, .pth, .safetensors\)"),
        ("nowhere.pt", r"there is no file nowhere.pt"),
    ],
)
def test_what_is_no_weights_file_is_refused_by_its_name(value: str, message: str) -> None:
    with pytest.raises(UserError, match=f"model.weights: {message}"):
        weights.check_name(value)
    assert weights.check_name("imagenet") == "imagenet"
