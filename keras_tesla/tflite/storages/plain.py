"""Each percentage's weights by themselves."""

from keras_tesla.tflite.storages.storage import Storage


class Plain(Storage):
    """Each percentage as the converter made it, without operators that some delegates do not take.

    Equal runs of bytes, and one that begins another, are stored once all the same: the pool of
    constants does that for every storage.
    """

    name = "plain"

    def needs_floats(self, quantization):
        return False

    def graphs(self, leaves, floats, quantization):
        return leaves, []
