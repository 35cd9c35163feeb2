"""From files to arrays: readers, the cache, splits, mixing, augmentation and rendered demo faces."""
