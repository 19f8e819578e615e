"""A plan in, a C99 program for a microcontroller out: model.h, model.c, probe.c, how to build them.

`program` walks the plan and says which function each node becomes; the functions stand as text in
`templates/`. Here no compiler runs but in `footprint`, and nothing is proven: that is `verify`'s.
"""
