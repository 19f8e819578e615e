"""The name of a trained model in, its file out.

What comes in: `nmnist8-small`, or any path. What goes out: the `.nir` file, from this folder, where
an installed wheel carries small models as `NAME.nir`, or from `models/NAME/model.nir` of a
checkout. This room opens no file.
"""

from mpsl_runtime.zoo.names import find_model, known_models

__all__ = ["find_model", "known_models"]
