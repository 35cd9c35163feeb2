"""One file per search space: a question and its axes. Installed as `fer_ray.search_spaces`."""
