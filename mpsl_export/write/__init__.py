"""A checkpoint or a plan in, a file of another program's format out.

What comes in: a merged network. What goes out: a `.nir` or `.onnx` file, or a folder of C. These
are the only crossings into formats; what reads an ONNX file back stands here too.
"""
