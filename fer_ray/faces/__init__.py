"""Finding, aligning and judging faces: the same code for data sets, sheets and, later, prediction."""
