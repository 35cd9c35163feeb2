"""Synthetic faces: made from the training faces of a data set."""
