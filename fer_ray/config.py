"""`RunConfig`: every knob of one run, frozen and validated, with its default, unit and bound.

A config is nested (`config.data.image_size`) in code and flat (`data.image_size`) in files, flags and result columns.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from fer_ray.errors import UserError, nearest

TRAINING_VERSION = 1
"""Raised whenever the same config would give other numbers than before, so that finished trials are not reused."""

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Group(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


class ModelConfig(_Group):
    """The network."""

    name: str = Field("ResNet18", description="architecture, a name from the zoo")
    weights: Literal["none", "imagenet"] = Field(
        "none",
        description="initial weights: none (from scratch), or imagenet (downloaded once through timm/torchvision)",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="dropout before the classifier, 0 to below 1")


class DataConfig(_Group):
    """Which faces, how many, and their form."""

    source: str = Field("demo", description="real faces: a folder, .csv, .parquet or .zip, or demo (rendered faces)")
    synthetic: str | None = Field(None, description="synthetic faces: a folder, .parquet or .zip; demo has its own")
    classes: Literal["same", "common"] = Field(
        "same", description="what to do when real and synthetic classes differ: same (refuse) or common (shared only)"
    )
    test_split: Literal["private", "public", "all"] = Field(
        "private", description="FER2013's test images: PrivateTest, PublicTest, or all 7,178 of both"
    )
    image_size: Literal["native"] | Annotated[int, Field(ge=32, le=512)] = Field(
        "native", description="side of the network's input in pixels, 32 to 512; native is the data set's own"
    )
    num_train_images: Literal["auto"] | Annotated[int, Field(ge=2)] = Field(
        "auto", description="training images N of one run; auto is the largest that every cell can fill"
    )
    real_fraction: Fraction = Field(1.0, description="share of real faces among the N training images, 0 to 1")
    mixing: Literal["replace", "add", "real_only"] = Field(
        "replace",
        description="replace: rN real + (1-r)N synthetic; add: N real + (1-r)/r N synthetic; real_only: rN real",
    )
    normalization: Literal["auto", "image", "unit", "half", "imagenet"] = Field(
        "auto",
        description="image: each image to mean 0 and std 1; unit: [0, 1]; half: mean .5, std .5; imagenet: its mean "
        "and std; auto: imagenet with its weights, image from scratch",
    )


class AugmentationConfig(_Group):
    """None means: as the preset says."""

    preset: str = Field("standard", description="parameter set of the training augmentation")
    flip_probability: Fraction | None = Field(None, description="probability of a horizontal flip, 0 to 1")
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] | None = Field(None, description="rotation, +- degrees")
    min_crop: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="smallest side of a random square crop, as a share of the image's side"
    )
    zoom: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="zoom, +- share of the side")
    shift: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="shift, +- share of the side")
    shear_degrees: Annotated[float, Field(ge=0, lt=90)] | None = Field(None, description="shear, +- degrees")


class OptimizerConfig(_Group):
    """How weights follow gradients."""

    name: Literal["adamw", "adam", "sgd"] = Field("adamw", description="optimizer; sgd has Nesterov momentum .9")
    learning_rate: Annotated[float, Field(gt=0, le=10)] = Field(2e-3, description="peak learning rate")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(0.02, description="weight decay, on matrices only")
    schedule: Literal["one_cycle", "cosine", "constant"] = Field(
        "one_cycle", description="learning rate over the run's steps"
    )
    warmup_fraction: Fraction = Field(0.25, description="share of all steps spent warming up, 0 to 1")


class TrainingConfig(_Group):
    """How long, in which batches, and which epoch is kept."""

    epochs: Annotated[int, Field(ge=1)] = Field(20, description="passes over N nominal images")
    batch_size: Annotated[int, Field(ge=2)] = Field(32, description="images per optimizer step")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        0, description="drives initialisation, order, augmentation and the draw of the training images"
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        None, description="epochs without a better validation value before the run stops; none: to the end"
    )
    selection_metric: Literal["macro_f1", "accuracy", "loss"] = Field(
        "macro_f1", description="validation value that chooses the epoch"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="label smoothing, 0 to below 1")
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = Field(1.0, description="gradient clipping by norm")


class RuntimeConfig(_Group):
    """How a run is executed. Recorded in its row, not part of its signature."""

    device: str = Field("auto", description="auto (a GPU if there is one), cpu, cuda or cuda:N")
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="CPU threads of one run; auto: 1 in a sweep on the CPU, every core of a single run"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: what the hardware has")


class RunConfig(_Group):
    """One run: what is trained, on what, how. `RunConfig()` trains ResNet18 on rendered demo faces."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> "RunConfig":
        """A config from `{"data.image_size": 48, ...}`; keys left out take their defaults.

        Raises UserError naming the key, its value and what was expected.
        """
        nested: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            check_key(key)
            group, name = key.split(".")
            nested.setdefault(group, {})[name] = value
        try:
            return cls.model_validate(nested)
        except ValidationError as error:
            raise UserError(_describe(error)) from None

    def flat(self) -> dict[str, Any]:
        """`{"data.image_size": 48, ...}` with every key, in the order of their definition."""
        return {f"{g}.{name}": value for g, group in self.model_dump().items() for name, value in group.items()}

    def replace(self, values: Mapping[str, Any]) -> "RunConfig":
        """A copy with other values for some flat keys, validated again."""
        return RunConfig.from_flat({**self.flat(), **values})

    def signature(self, data_digest: str, synthetic_digest: str | None) -> str:
        """16 hex digits that name the experiment: the request, the data's content and the training version.

        Paths, device, threads and precision are not part of it. Two runs with one signature answer the same
        question, so a finished one is not trained again.
        """
        request = {key: value for key, value in self.flat().items() if key not in NOT_HASHED}
        record = [TRAINING_VERSION, request, data_digest, synthetic_digest]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]

    def run_id(self, signature: str) -> str:
        """A name that people can read in a folder listing: model, real share, seed and the signature's start."""
        return f"{self.model.name}-r{self.data.real_fraction:g}-s{self.training.seed}-{signature[:8]}"


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every flat key with its field: description, default and bounds, for flags and help."""
    for group, group_info in RunConfig.model_fields.items():
        annotation = group_info.annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        for name, info in annotation.model_fields.items():
            yield f"{group}.{name}", info


KEYS: dict[str, FieldInfo] = dict(fields())
NOT_HASHED = {key for key in KEYS if key.startswith("runtime.")} | {"data.source", "data.synthetic"}


def check_key(key: str) -> None:
    """Raises UserError with the nearest known key if `key` is none of the config's."""
    if key not in KEYS:
        raise UserError(f"unknown config key {key!r}{nearest(key, KEYS)}")


def parse_value(key: str, text: str) -> Any:
    """The value of a `--set key=value` flag: a number where the key takes one, None for `none`, else the text."""
    check_key(key)
    annotation = str(KEYS[key].annotation)
    if text.casefold() in ("none", "null") and "None" in annotation:
        return None
    if "int" not in annotation and "float" not in annotation:
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text


def _describe(error: ValidationError) -> str:
    problems: dict[str, tuple[Any, list[str]]] = {}
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"][:2])
        problems.setdefault(key, (item["input"], []))[1].append(item["msg"])
    lines = []
    for key, (value, messages) in problems.items():
        info = KEYS.get(key)
        expected = " or ".join(message.removeprefix("Input should be ") for message in messages)
        lines.append(f"{key}: got {value!r}, expected {expected}" + (f" ({info.description})" if info else ""))
    return "; ".join(lines)
