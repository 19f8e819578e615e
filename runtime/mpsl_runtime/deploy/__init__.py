"""What deploying a network asks: operations, footprint, an estimate of energy, and whether a chip
takes it.

What comes in: a plan, test samples, and one TOML file for each chip. What goes out: figures by
NeuroBench's rules, and for each chip its limits, with their sources, beside what the network needs.
This room talks to no chip, maps nothing onto one, and knows no file format of a model.
"""
