"""Each percentage's weights, stored separately."""

from keras_tesla.tflite.storages.storage import Storage


class Plain(Storage):
    """Each percentage as the converter made it, without operators that some delegates lack.

    Equal runs of bytes, and one that begins another, are still stored once: the pool of
    constants does that for every storage.
    """

    name = "plain"

    def needs_floats(self, quantization):
        return False

    def rewrite(self, graphs, floats, quantization):
        return graphs, []
