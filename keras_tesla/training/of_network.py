"""What a TESLA model has of its network, and what Keras does only for one network."""

import pathlib
from typing import TYPE_CHECKING, Any

import keras

from keras_tesla.narrowing import widths

# To a type checker the mix-in is the model that it completes.
_Model: Any = keras.Model if TYPE_CHECKING else object


class OfNetwork(_Model):
    """The part of `TESLA` that stands for the network.

    `layers` holds the network itself, as files of weights are laid out by it.
    """

    @property
    def inputs(self):
        """The network's inputs."""
        return self.network.inputs

    @property
    def outputs(self):
        """The network's outputs; those of a call are in a dict by percentage."""
        return self.network.outputs

    @property
    def input_shape(self):
        """The shape of the network's input, or of all of them, as in Keras."""
        return self.network.input_shape

    @property
    def output_shape(self):
        """The shape of the network's output, or of all of them, as in Keras."""
        return self.network.output_shape

    def get_layer(self, name=None, index=None):
        """Returns a layer of the network, as `keras.Model.get_layer` does."""
        return self.network.get_layer(name, index)

    def summary(self, line_length=None, positions=None, print_fn=None, **kwargs):
        """Prints Keras' summary of the network, and the channels of its layers at each percentage.

        A cell of the second table is the number of channels that a layer computes. `50>10`: an
        incomplete layer computes 10 and reads only 50 of its input's.

        Args:
            line_length: As in Keras.
            positions: As in Keras.
            print_fn: As in Keras: takes each table as a string. Default: `print`.
            **kwargs: All others, as in Keras.
        """
        self.network.summary(line_length, positions, print_fn, **kwargs)
        (print_fn or print)(widths.table(self.graph, self.percentages))

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """Saves the model in a `.keras` file, as `keras.Model.save` does.

        Raises:
            ValueError: If the file's name ends in `.h5` or `.hdf5`: that format has no place for
                the percentages.
        """
        if pathlib.Path(filepath).suffix in (".h5", ".hdf5"):
            raise ValueError(
                "A TESLA model is saved in a `.keras` file; HDF5 is for single Functional and "
                f"Sequential models, such as `tesla.at(50)`. Received: {str(filepath)!r}"
            )
        super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def export(self, *args, **kwargs):
        """Is refused: Keras' export knows no percentages.

        Raises:
            ValueError: Always, with the ways to export.
        """
        raise ValueError(
            "Keras' `export` knows no percentages. Export all of them with "
            "`keras_tesla.tflite.export(tesla, ..)`, or one as a plain Keras model with "
            "`tesla.at(50).export(..)`."
        )

    def quantize(self, *args, **kwargs):
        """Is refused: Keras would quantize only the layers that are not incomplete.

        Raises:
            ValueError: Always, with the ways to int8.
        """
        raise ValueError(
            "Keras' `quantize` knows no incomplete layers, so each percentage would be another "
            "network. Quantize at export, `keras_tesla.tflite.export(.., quantization='int8')`, "
            "train in int8 with `keras_tesla.quantization_aware`, or quantize one percentage, "
            "`tesla.at(50).quantize(..)`."
        )
