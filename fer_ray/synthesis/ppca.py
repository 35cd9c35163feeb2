"""Class-conditional probabilistic PCA: a Gaussian model of the faces of one class, and new faces drawn from it.

A face is x = W z + mean + noise, with latent z ~ N(0, I_q) and noise ~ N(0, sigma^2 I_d) (M. E. Tipping and
C. M. Bishop, Probabilistic principal component analysis, Journal of the Royal Statistical Society B 61, 1999,
611-622). Drawn faces leave the noise out, so they are smooth.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.utils.extmath import randomized_svd

from fer_ray.errors import UserError

MIN_FACES = 2
"""A face is made of two others."""

_SVD_SEED = 0  # of the randomised SVD; the fit depends on the faces alone


@dataclass(frozen=True)
class Model:
    """The faces of one class; d = H * W * C pixels, q components, n training faces.

    Attributes:
        mean: float32 [H, W, C], grey levels.
        loadings: float32 [q, d], the transpose of W.
        latents: float32 [n, q], the posterior mean of each training face's z.
        posterior_std: float32 [q], the posterior's standard deviation, the same for every face.
        explained: share of the faces' variance that W keeps, 0 to 1.
    """

    mean: np.ndarray
    loadings: np.ndarray
    latents: np.ndarray
    posterior_std: np.ndarray
    explained: float


def fit(faces: np.ndarray, num_components: int) -> Model:
    """The maximum-likelihood model of uint8 [n, H, W, C] faces, with at most n - 1 components.

    W = U (L - sigma^2)^(1/2), where L holds the q largest eigenvalues of the covariance, U their vectors and sigma^2
    the mean of the d - q others (eqs. 7 and 8 of the paper). With these, z given x has the mean
    L^-1 W^T (x - mean) and the variance sigma^2 L^-1 (section 3.3).

    Raises UserError for fewer than two faces.
    """
    if len(faces) < MIN_FACES:
        raise UserError(f"probabilistic PCA needs at least {MIN_FACES} training faces of a class, got {len(faces)}")
    pixels = faces.reshape(len(faces), -1).astype(np.float32)
    mean = pixels.mean(axis=0)
    pixels -= mean
    num_pixels = pixels.shape[1]
    num_components = min(num_components, len(faces) - 1, num_pixels - 1)
    left, singular, components = randomized_svd(pixels, num_components, n_iter=4, random_state=_SVD_SEED)
    coordinates = left * singular
    # Divided by n, as maximum likelihood has it. Equal faces leave no variance, and nothing may be divided by 0.
    eigenvalues = np.maximum(singular.astype(np.float64) ** 2 / len(faces), 1e-6)
    total = np.square(pixels).mean(axis=0, dtype=np.float64).sum()
    noise = max(total - eigenvalues.sum(), 0.0) / (num_pixels - len(eigenvalues))
    scales = np.sqrt(np.maximum(eigenvalues - noise, 0.0))
    return Model(
        mean=mean.reshape(faces.shape[1:]),
        loadings=(scales[:, None] * components).astype(np.float32),
        latents=(coordinates * (scales / eigenvalues)).astype(np.float32),
        posterior_std=np.sqrt(noise / eigenvalues).astype(np.float32),
        explained=min(eigenvalues.sum() / total, 1.0) if total else 1.0,
    )


def sample(model: Model, num_faces: int, rng: np.random.Generator) -> np.ndarray:
    """New faces, uint8 [num_faces, H, W, C], each from the latents of two different training faces.

    z = cos(t) z_1 + sin(t) z_2 + posterior noise, with t uniform in [0, pi / 2]. The squared weights sum to 1, so
    that z has the covariance of the prior: faces vary as much as those of training, where a plain average would be
    nearer to the mean face.
    """
    num_trained, num_components = model.latents.shape
    first = rng.integers(num_trained, size=num_faces)
    second = (first + rng.integers(1, num_trained, size=num_faces)) % num_trained
    angle = rng.uniform(0, np.pi / 2, (num_faces, 1))
    latents = np.cos(angle) * model.latents[first] + np.sin(angle) * model.latents[second]
    latents += model.posterior_std * rng.standard_normal((num_faces, num_components))
    pixels = (latents.astype(np.float32) @ model.loadings).reshape(num_faces, *model.mean.shape) + model.mean
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
