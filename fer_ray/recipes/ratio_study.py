"""System E: seven networks at real shares 0, .1, .3, .5 and 1 of StyleGAN2-ADA and real faces.

The source: the folder edition of FER2013 as RGB at 224 pixels ("x64" in its tables names the generated images);
ResNet18 and six others; the best model by validation F1; at most 100 epochs with patience 10. Learning rate,
optimizer, batch size, seeds and the kind of averaging are not stated.

`ratio-study` is one of its runs: choose the network with `--model` and the share with `--real-fraction`; the space
`ratios` compares all of them. We differ where a comparison of shares would not be fair otherwise: every cell runs to
its end (a cell that stops earlier had another budget), and all shares of a seed take nested faces. Chosen here: AdamW
2e-3 with one cycle, batch 32, label smoothing .1, flip.
"""

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "ratio-study": {
        "model.name": "ResNet18",
        "data.test_split": "all",
        "augmentation.preset": "flip",
        "training.epochs": 100,
        "training.selection_metric": "macro_f1",
    }
}
