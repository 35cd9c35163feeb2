"""Every architecture by name."""
