"""Finished runs in, a model's card out.

What comes in: run folders of one recipe. What goes out: card.md, report.json and model.nir, every
figure out of a run.
"""
