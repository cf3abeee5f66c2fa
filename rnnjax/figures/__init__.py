"""Figures from the files of runs and from arrays: they know no model."""
