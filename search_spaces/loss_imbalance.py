"""FER2013 has 16 happy faces for each disgusted one. Does it help to tell the training so, and how?

Nothing done; classes weighted in the loss by the inverse of their number (as EmotiEff's training does, system A); all
classes drawn equally often; the focal loss with gamma 2 (Lin et al. 2017, arXiv:1708.02002), alone and with weights of
the classes, which are the paper's alpha. The recall of the rare classes is in the tables per class.

Demo faces have equally many of each class: there the cells show that everything runs, and no difference.

Seeds: three. Metric: macro F1, in which a rare class counts as much as a common one. Cost: 15 runs; `--small` ten
minutes on 2 CPU cores, the demo one.
"""

from fer_ray.space import Space

SPACE = Space(
    name="loss_imbalance",
    question="Does it help rare classes to weigh, resample or focus the loss, and does it cost the common ones?",
    variants={
        "neither": {},
        "class weights": {"task.class_weights": "inverse"},
        "balanced sampling": {"data.sampling": "balanced"},
        "focal": {"task.classification_loss": "focal"},
        "focal, class weights": {"task.classification_loss": "focal", "task.class_weights": "inverse"},
    },
    base={"model.name": "ResNet9", "task.focal_gamma": 2.0},
    demo={"data.image_size": 32, "data.num_train_images": 480, "training.epochs": 3},
    small={"data.image_size": 32, "data.num_train_images": 2000, "training.epochs": 6},
)
