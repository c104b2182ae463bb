"""PerRange: a separate layer for each range of percentages."""

import keras

from keras_tesla.percentages import check_percentages
from keras_tesla.scope import current_percentage

# Layers that compute each output channel as a dot product: narrowing must know their weights.
_KINDS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@keras.saving.register_keras_serializable("keras_tesla")
class PerRange(keras.layers.Layer):
    """One of several layers, chosen by the percentage.

    With `layers={p_1: f_1, .., 100: f_n}` and ascending p_i, at percentage p

    `y = f_i(x)`, with p_i the smallest key that is at least p

    In a network with multiple profiles each range of percentages has its own first and last layer,
    and the incomplete layers between them are shared (`callbacks.MultiProfile`). All of the layers
    are built and saved; only the chosen one runs. `TESLA.at` contains only the chosen stock layer.

    Args:
        layers: Dict {highest percentage of the range: layer}. One key must be 100. The layers are
            different `keras.layers.Dense`, or `Conv1D`, `Conv2D` or `Conv3D`, all of one class,
            dtype, data format and output shape.
        name: Optional name.

    Input shape:
        That of each layer.

    Output shape:
        That of each layer.

    Raises:
        ValueError: At construction: not a dict; keys that are not percentages, or lack 100; layers
            of another class (an IDP layer, a subclass) or of different classes; a quantized dtype;
            one layer under two keys. At build: layers of different output shapes.

    Example:

    >>> layer = PerRange({
    ...     30: keras.layers.Dense(1, kernel_initializer="ones"),
    ...     100: keras.layers.Dense(1, kernel_initializer="zeros")})
    >>> x = np.array([[1.0, 2.0]])
    >>> layer(x).numpy().tolist()
    [[0.0]]
    >>> with percentage_scope(20):
    ...     layer(x).numpy().tolist()
    [[3.0]]

    Reference:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """

    def __init__(self, layers, name=None):
        ranges = _checked(layers)
        super().__init__(name=name, dtype=ranges[100].dtype_policy)
        self.ranges = ranges
        self.supports_masking = ranges[100].supports_masking

    def layer_at(self, percentage: int):
        """Returns the layer that runs at `percentage`, an int from 1 to 100."""
        return next(layer for highest, layer in self.ranges.items() if highest >= percentage)

    def build(self, input_shape):
        shapes = {p: layer.compute_output_shape(input_shape) for p, layer in self.ranges.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f"The layers of {self.name!r} must have the same output shape. Received: {shapes}"
            )
        for layer in self.ranges.values():
            if not layer.built:
                layer.build(input_shape)

    def call(self, inputs):
        return self.layer_at(current_percentage())(inputs)

    def compute_output_shape(self, input_shape):
        return self.ranges[100].compute_output_shape(input_shape)

    def get_config(self):
        layers = {str(p): keras.saving.serialize_keras_object(x) for p, x in self.ranges.items()}
        return {"layers": layers, "name": self.name}  # keys as in JSON

    @classmethod
    def from_config(cls, config):
        layers = {
            int(p): keras.saving.deserialize_keras_object(x) for p, x in config["layers"].items()
        }
        return cls(layers, config["name"])


def _checked(layers):
    """Returns {highest percentage: layer}, ascending, or refuses it."""
    if not isinstance(layers, dict):
        raise ValueError(
            "`layers` must be a dict {highest percentage of the range: layer}, for example "
            f"{{30: Dense(10), 100: Dense(10)}}. Received: {layers!r}"
        )
    ranges = {p: layers[p] for p in reversed(check_percentages(layers))}
    if 100 not in ranges:
        raise ValueError(
            "The last range must end at 100 percent: give a layer for the key 100. "
            f"Received keys: {list(ranges)}"
        )
    for layer in ranges.values():
        if type(layer) not in _KINDS:
            raise ValueError(
                f"The layers must be of {[kind.__name__ for kind in _KINDS]}, not of a subclass; "
                f"an IDP layer is shared by all ranges and cannot be in one. Received: {layer!r}"
            )
        if layer.dtype_policy.quantization_mode is not None:
            raise ValueError(
                "PerRange does not run on a quantized dtype policy; quantize at export instead. "
                f"Received: dtype={layer.dtype_policy.name!r}"
            )
    if len({id(layer) for layer in ranges.values()}) < len(ranges):
        raise ValueError(
            "Each range must have a layer of its own: make one for each key. "
            f"Received one layer for several: {ranges}"
        )
    kinds = {
        p: (type(x).__name__, x.dtype_policy.name, getattr(x, "data_format", None))
        for p, x in ranges.items()
    }
    if len(set(kinds.values())) > 1:
        raise ValueError(
            f"The layers must be of one class, dtype and data format. Received: {kinds}"
        )
    return ranges
