"""From the banks of a trained run to files that others can run, with proof that nothing was lost.

checkpoint → merge → to_nir → to_onnx, then verify against the record that training left. There is
no torch here except inside the verification back ends.
"""
