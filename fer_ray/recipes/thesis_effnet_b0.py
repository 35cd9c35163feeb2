"""System A: EfficientNet-B0 with VGGFace2 weights, SAM, and faces generated in sheets.

The source: timm's tf_efficientnet_b0_ns (now tf_efficientnet_b0.ns_jft_in1k) with the state dict
state_vggface2_enet0_new.pt, which has no classifier for expressions, and a new layer for 8 classes, contempt only where
the data have it; 224x224x3, faces detected and aligned; RobustOptimizer(lr=1e-4, rho=0.05), 6 epochs. RobustOptimizer
is the SAM of the EmotiEff code, over Adam. Protocol: the pretrained network tested on real data; then fine-tuning on
synthetic faces, cross-validation and domain transfer.

`thesis-effnet-b0-baseline` is the first phase. No classifier comes with the weights, so a linear one is fitted on the
untouched features of the real training faces, and tested on real faces.

`thesis-effnet-b0` fine-tunes on synthetic faces alone (`data.real_fraction` 0; 1 is real ones, .5 both) and tests on
real and, with a synthetic test split, on synthetic faces: the three rows of the domain transfer are three values of
`--real-fraction`, and the synthetic-to-synthetic consistency check is `synthetic_test_*` at share 0. For
cross-validation, `data.fold` is an axis. `--weights state_vggface2_enet0_new.pt` gives the weights; without the file it
starts from scratch.

Not stated, and chosen here: batch 64, label smoothing .1, class weights, ImageNet mean and deviation, 3 epochs of the
head alone at 1e-3 first, all as the EmotiEff code has them. It let batch-norm statistics of frozen layers move; here
frozen layers stay as they are.
"""

from typing import Any

SOURCE: dict[str, Any] = {
    "model.name": "tf_efficientnet_b0.ns_jft_in1k",
    "data.image_size": 224,
    "data.normalization": "imagenet",
    "data.synthetic_test_fraction": 0.15,
    "augmentation.preset": "none",
    "task.class_weights": "inverse",
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1e-4,
    "optimizer.weight_decay": 0.0,
    "optimizer.schedule": "constant",
    "optimizer.warmup_fraction": 0.0,
    "optimizer.sam_rho": 0.05,
    "training.batch_size": 64,
    "training.label_smoothing": 0.1,
    "training.max_gradient_norm": None,
}

RECIPES: dict[str, dict[str, Any]] = {
    "thesis-effnet-b0": SOURCE
    | {"data.real_fraction": 0.0, "training.phases": "head 3 x10, all 6", "training.epochs": 9},
    "thesis-effnet-b0-baseline": SOURCE
    | {"data.synthetic_test_fraction": 0.0, "training.phases": "head 3 x10", "training.epochs": 3},
}
