"""Figures: truth against prediction, and a table's intervals; the style of all figures."""
