"""fer_ray: hyper-parameter sweeps and ablations for facial expression recognition."""

__version__ = "0.1.0"
