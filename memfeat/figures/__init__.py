"""Figures: a table's intervals and learning curves; the style of all figures."""
