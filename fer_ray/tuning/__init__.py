"""Ray Tune and Optuna: the only part of fer_ray that knows them."""
