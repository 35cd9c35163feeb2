"""Is the data any good? What a data set holds, and how far synthetic faces are from real ones."""
