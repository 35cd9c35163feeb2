"""Speed and memory, measured on the machine at hand: ratios within one run, with their spread."""
