"""The command `keras-tesla`: the tools of export/ without a clone, `convert` and `train`.

It lies beside the library, not in it: importing any part of `keras_tesla` imports Keras and its
backend, which takes seconds, and registers the classes that saved models name. Help, versions and
wrong flags need none of that. So the modules here import the library in their functions, once the
arguments are read.
"""
