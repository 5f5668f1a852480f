"""Metrics with their controls, and the table that the model card shows."""
