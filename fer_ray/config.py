"""`RunConfig`: every knob of one run, frozen and validated, with its default, unit and bound.

A config is nested (`config.data.image_size`) in code and flat (`data.image_size`) in files, flags and result columns.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from fer_ray.errors import UserError, nearest
from fer_ray.phases import parse_phases

TRAINING_VERSION = 1
"""Raised whenever the same config would give other numbers than before, so that finished trials are not reused."""

Fraction = Annotated[float, Field(ge=0, le=1)]


def _checked_fold(value: str) -> str:
    match = re.fullmatch(r"([1-9]\d?)/([1-9]\d?)", value)
    if not match or int(match[1]) > int(match[2]) or int(match[2]) < 2:
        raise ValueError("I/K with I from 1 to K, and K from 2 to 99, e.g. 1/5")
    return value


def _checked_phases(value: str) -> str:
    parse_phases(value)
    return value


class _Group(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


class ModelConfig(_Group):
    """The network."""

    name: str = Field("ResNet18", description="architecture: a name from the zoo, or any of timm's")
    weights: str = Field(
        "none",
        description="initial weights: none (from scratch), imagenet (downloaded once through timm/torchvision), or a "
        "file: .pt, .pth or .safetensors",
    )
    head: Literal["linear", "efficientnetv2s-two-phase", "affect-resnet50", "affect-efficientnetb0", "affect-cnn"] = (
        Field("linear", description="layers after the features: linear, or those of one of the systems")
    )
    stem: Literal["standard", "stride1"] = Field(
        "standard", description="stride1: the first layers keep the resolution, for small images; costs more"
    )
    channels: Literal[1, 3] = Field(
        3, description="input channels; grey images are repeated for 3, colour is averaged for 1"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="dropout before the classifier, 0 to below 1")


class TaskConfig(_Group):
    """What is learned, and by which loss."""

    name: Literal["expression", "affect", "multitask"] = Field(
        "expression", description="expression: classes; affect: valence and arousal; multitask: both"
    )
    classification_loss: Literal["cross_entropy", "focal"] = Field("cross_entropy", description="loss of the classes")
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = Field(2.0, description="focusing parameter of the focal loss")
    class_weights: Literal["none", "inverse"] = Field(
        "none", description="weights of the classes in the loss; inverse: to their number of training images"
    )
    affect_loss: Literal["mse", "ccc", "mse_ccc"] = Field(
        "mse", description="loss of valence and arousal: squared error, 1 - CCC, or the mean of both"
    )
    expression_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the classes' loss, multitask")
    valence_weight: Annotated[float, Field(ge=0)] = Field(0.5, description="weight of valence's loss, multitask")
    arousal_weight: Annotated[float, Field(ge=0)] = Field(0.5, description="weight of arousal's loss, multitask")


class DataConfig(_Group):
    """Which faces, how many, and their form."""

    source: str = Field("demo", description="real faces: a folder, .csv, .parquet or .zip, or demo (rendered faces)")
    synthetic: str | None = Field(None, description="synthetic faces: a folder, .parquet or .zip; demo has its own")
    classes: Literal["same", "common"] = Field(
        "same", description="what to do when real and synthetic classes differ: same (refuse) or common (shared only)"
    )
    label_set: Literal["native", "fer7", "fer4", "affectnet8", "affectnet7", "ferplus8", "emotieff8", "emotieff7"] = (
        Field("native", description="classes and their order; others are merged or left out, which is said aloud")
    )
    votes: Literal["majority", "probability", "multi_target"] = Field(
        "majority",
        description="FER+: train towards the majority's class, the votes as probabilities, or any of the voted classes",
    )
    align: bool = Field(
        False, description="find faces and bring their eyes to fixed places, once, when they enter the cache"
    )
    test_source: str | None = Field(
        None, description="another data set that every run is tested on as well: its test split, else all of it"
    )
    synthetic_test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the synthetic faces kept for a synthetic test; a test split they have is always one"
    )
    fold: Annotated[str, AfterValidator(_checked_fold)] | None = Field(
        None, description="I/K: part I of K of the training images validates, the rest trains (cross-validation)"
    )
    drop_leaks: bool = Field(
        False, description="leave training images out that are near-duplicates of validation or test images"
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
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="how training images are drawn: each once an epoch, or all classes equally often"
    )
    mixing: Literal["replace", "add", "real_only"] = Field(
        "replace",
        description="replace: rN real + (1-r)N synthetic; add: N real + (1-r)/r N synthetic; real_only: rN real",
    )
    normalization: Literal["auto", "image", "unit", "half", "imagenet"] = Field(
        "auto",
        description="image: each image to mean 0 and std 1; unit: [0, 1]; half: mean .5, std .5; imagenet: its mean "
        "and std; auto: what pretrained weights expect, imagenet with a file of weights, image from scratch",
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
    erasing_probability: Fraction = Field(0.0, description="probability of random erasing, 0 to 1")
    mixup_alpha: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="MixUp's Beta(alpha, alpha); 0 is off")
    cutmix_alpha: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="CutMix's Beta(alpha, alpha); 0 is off")
    views: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="that many fixed augmented views of each image, in turn, instead of a new one each time"
    )
    test_time: Literal["none", "flip", "ten_crop"] = Field(
        "none", description="views whose probabilities are averaged in validation and test"
    )


class OptimizerConfig(_Group):
    """How weights follow gradients."""

    name: Literal["adamw", "adam", "sgd", "muon"] = Field(
        "adamw", description="optimizer; muon is for convolutions with norms, and SGD for what else there is"
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] = Field(2e-3, description="peak learning rate")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(0.02, description="weight decay, on matrices only")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Nesterov momentum of sgd and muon")
    schedule: Literal["one_cycle", "cosine", "step", "plateau", "constant"] = Field(
        "one_cycle", description="learning rate over the steps of each phase"
    )
    warmup_fraction: Fraction = Field(0.25, description="share of a phase's steps spent warming up, 0 to 1")
    step_epochs: Annotated[int, Field(ge=1)] = Field(7, description="epochs between two drops of schedule step")
    step_factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="factor of a drop of schedule step")
    plateau_epochs: Annotated[int, Field(ge=1)] = Field(
        5, description="epochs without a better validation value before schedule plateau drops"
    )
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="factor of a drop of schedule plateau")
    sam_rho: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="radius of sharpness-aware minimisation; 0 is the plain optimizer"
    )
    sam_adaptive: bool = Field(False, description="adaptive SAM: the radius scales with each weight")
    sam_every: Annotated[int, Field(ge=1)] = Field(1, description="SAM's second pass in every k-th step only")
    sam_fraction: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="share of a batch in SAM's second pass")
    accumulation_steps: Annotated[int, Field(ge=1)] = Field(
        1, description="parts that a batch is cut into, whose gradients are summed, to save memory"
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay per step of a moving average of the weights, which is then what is judged"
    )


class TrainingConfig(_Group):
    """How long, in which batches, and which epoch is kept."""

    epochs: Annotated[int, Field(ge=1)] = Field(20, description="passes over N nominal images")
    batch_size: Annotated[int, Field(ge=2)] = Field(32, description="images per optimizer step")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        0, description="drives initialisation, order, augmentation and the draw of the training images"
    )
    phases: Annotated[str, AfterValidator(_checked_phases)] | None = Field(
        None,
        description="what is trained when, as PART SHARE [xFACTOR] [carry], ...: PART is head, last-N (layers with "
        "weights), from-BLOCK or all; SHARE of the epochs; FACTOR of the learning rate; carry keeps the optimizer's "
        "state. E.g. 'head 30, last-30 20 x0.1'",
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        None, description="epochs without a better validation value before a phase ends; none: to its end"
    )
    selection_metric: Literal["macro_f1", "accuracy", "loss", "ccc", "mae"] = Field(
        "macro_f1",
        description="validation value that chooses the epoch; ccc (of valence and arousal) where there are no classes",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="label smoothing, 0 to below 1")
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = Field(1.0, description="gradient clipping by norm")


class RuntimeConfig(_Group):
    """How a run is executed. Recorded in its row, not part of its signature."""

    device: str = Field("auto", description="auto (a GPU if there is one), cpu, cuda or cuda:N")
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="CPU threads of one run; auto: 1 in a sweep on the CPU, every core of a single run"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: what the hardware has; float16 scales the loss"
    )
    layout: Literal["auto", "channels_last", "contiguous"] = Field("auto", description="memory layout of images")
    compile: bool = Field(False, description="torch.compile the network: slower to start, then faster on GPUs")
    checkpoint_seconds: Annotated[float, Field(ge=0)] = Field(
        30.0, description="work that an interruption may cost beside the running epoch; 0: a checkpoint every epoch"
    )


class RunConfig(_Group):
    """One run: what is trained, on what, how. `RunConfig()` trains ResNet18 on rendered demo faces."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    task: TaskConfig = TaskConfig()
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

    def signature(self, data_digest: str, synthetic_digest: str | None, cross_digest: str | None = None) -> str:
        """16 hex digits that name the experiment: the request, the data's content and the training version.

        Paths, device, threads and precision are not part of it. Two runs with one signature answer the same
        question, so a finished one is not trained again.
        """
        request = {
            key: value
            for key, value in self.flat().items()
            if key not in NOT_HASHED and (key not in ADDED_LATER or value != KEYS[key].default)
        }
        record = [TRAINING_VERSION, request, data_digest, synthetic_digest]
        if cross_digest is not None:
            record.append(cross_digest)
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
NAMED_WEIGHTS = ("none", "imagenet")
DATA_PATHS = ("data.source", "data.synthetic", "data.test_source")
NOT_HASHED = {key for key in KEYS if key.startswith("runtime.")}.union(DATA_PATHS)
ADDED_LATER = {
    "data.label_set",
    "data.votes",
    "data.align",
    "data.synthetic_test_fraction",
    "data.fold",
    "data.drop_leaks",
    "data.sampling",
    "model.head",
    "model.stem",
    "model.channels",
    "augmentation.erasing_probability",
    "augmentation.mixup_alpha",
    "augmentation.cutmix_alpha",
    "augmentation.views",
    "augmentation.test_time",
    "optimizer.momentum",
    "optimizer.step_epochs",
    "optimizer.step_factor",
    "optimizer.plateau_epochs",
    "optimizer.plateau_factor",
    "optimizer.sam_rho",
    "optimizer.sam_adaptive",
    "optimizer.sam_every",
    "optimizer.sam_fraction",
    "optimizer.accumulation_steps",
    "optimizer.ema_decay",
    "training.phases",
}.union(f"task.{name}" for name in TaskConfig.model_fields)
"""Keys that are part of a signature only where they are not at their default, so that older trials keep theirs."""


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
    if annotation == "<class 'bool'>":
        return {"true": True, "false": False}.get(text.casefold(), text)
    if not re.search(r"int|float|Literal\[\d", annotation):
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
        expected = " or ".join(
            message.removeprefix("Input should be ").removeprefix("Value error, ") for message in messages
        )
        lines.append(f"{key}: got {value!r}, expected {expected}" + (f" ({info.description})" if info else ""))
    return "; ".join(lines)
