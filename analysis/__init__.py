"""From result files to tables, figures and a dashboard. No Ray, no torch."""
