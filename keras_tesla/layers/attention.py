"""What the incomplete attention layers share."""

import contextvars
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_tesla.channels import Selection, pick
from keras_tesla.layers.incomplete import active_parts, checked_parts
from keras_tesla.percentages import active_terms, check_percentages
from keras_tesla.scope import current_percentage

# To a type checker the mix-in is the layer that it completes.
_Layer: Any = keras.Layer if TYPE_CHECKING else object

# {name of a projection: (channels that it reads, {name: weight})} in a call below 100 %.
_LENT: contextvars.ContextVar[dict | None] = contextvars.ContextVar("lent", default=None)

# {name of a projection: the attribute that holds it}
PROJECTIONS = {
    "query": "_query_dense",
    "key": "_key_dense",
    "value": "_value_dense",
    "gate": "_gate_dense",
    "attention_output": "_output_dense",
}


def projections(layer) -> dict[str, Any]:
    """Returns {name of a projection: its layer} of an attention layer of Keras, or ours.

    Without `use_gate` there is no `"gate"`.
    """
    found = {name: getattr(layer, path, None) for name, path in PROJECTIONS.items()}
    return {name: dense for name, dense in found.items() if dense is not None}


def needs_all_heads(layer, query, attention_mask=None, return_attention_scores=False, **others):
    """Whether a call has to do with each head: it returns scores, or has a mask for each.

    Args:
        layer: An attention layer of Keras, or ours.
        query: Of the call.
        attention_mask: Likewise.
        return_attention_scores: Likewise.
        **others: Its other arguments.
    """
    if return_attention_scores:
        return True
    axes = len(getattr(layer, "attention_axes", None) or (1,))
    of_scores = len(query.shape) + axes  # their rank: each of the axes twice, and the heads
    has_axis = attention_mask is not None and len(attention_mask.shape) == of_scores
    return has_axis and attention_mask.shape[-2 * axes - 1] != 1


class IncompleteAttention(_Layer):
    """Mix-in over a Keras attention layer: it leaves out channels that it reads, and heads.

    At percentage p the projections of query, key and value read the first `active_terms(n, p)` of
    the n channels of each, and only the first `active_terms(groups, p)` heads of keys and values
    are used, with the heads of the query that belong to them. The output projection reads these
    heads. A call that returns attention scores uses all heads, because the scores have an axis of
    them, and so does one with an `attention_mask` for each head.

    After a concatenation the channels can have parts, one for each tensor that was concatenated, of
    which the first channels each are read.

    Args:
        query_parts: Iterable of positive ints whose sum is the number of the query's channels, or
            None (default): all channels are one part.
        value_parts: Likewise of the value.
        key_parts: Likewise of the key. A call without a key takes the value for it, whose parts
            must then be the same.
        percentages: Iterable of distinct ints, 1..100: what a `TESLA` model trains if it is given
            no others.
    """

    def __init__(
        self,
        *args,
        query_parts=None,
        value_parts=None,
        key_parts=None,
        percentages=None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if self.dtype_policy.quantization_mode is not None:
            raise ValueError(
                f"{type(self).__name__} does not run on a quantized dtype policy; quantize at "
                f"export instead. Received: dtype={self.dtype_policy.name!r}"
            )
        given = {"query_parts": query_parts, "value_parts": value_parts, "key_parts": key_parts}
        checked = {
            name: None if parts is None else checked_parts(name, parts)
            for name, parts in given.items()
        }
        self.query_parts, self.value_parts, self.key_parts = checked.values()
        self.percentages: Any = None if percentages is None else check_percentages(percentages)
        self._parts: dict[str, tuple[int, ...]] = {}

    def build(self, query_shape, value_shape, key_shape=None):
        super().build(query_shape, value_shape, key_shape)
        if key_shape is None and self.key_parts is None:
            self.key_parts = self.value_parts
        shapes = {"query": query_shape, "value": value_shape, "key": key_shape or value_shape}
        for name, shape in shapes.items():
            given = getattr(self, f"{name}_parts")
            if given is not None and sum(given) != shape[-1]:
                raise ValueError(
                    f"`{name}_parts` of layer {self.name!r} must sum up to the {shape[-1]} channels"
                    f" of the {name}. Received: {given}, whose sum is {sum(given)}"
                )
            self._parts[name] = given or (shape[-1],)
        for dense in projections(self).values():
            # Keras makes them in `build`, of a class that it names there. The new one has no
            # attributes of its own.
            object.__setattr__(dense, "__class__", _Projection)

    @property
    def groups(self) -> int:
        """The number of heads of keys and values."""
        return self._key_dense.kernel.shape[1]

    def reads(self, percentage: int) -> dict[str, Selection | None]:
        """Returns {name of a projection: the channels that it reads at `percentage`; None: all}."""
        active = {name: active_parts(parts, percentage) for name, parts in self._parts.items()}
        return {**active, "gate": active["query"], "attention_output": None}

    def active_groups(self, percentage: int) -> int:
        """Returns how many heads of keys and values are used at `percentage`."""
        return active_terms(self.groups, percentage)

    def incomplete_weights(self, percentage: int, groups: int) -> dict[str, dict[str, Any]]:
        """Returns {name of a projection: {`"kernel"`, `"bias"`: tensor}} of a call.

        Args:
            percentage: Int, 1..100: of the channels that are read.
            groups: Int, how many heads of keys and values are used.
        """
        found, reads = {}, self.reads(percentage)
        for name, dense in projections(self).items():
            kernel, bias = ops.convert_to_tensor(dense.kernel), dense.bias
            axis = 0 if name == "attention_output" else 1  # that of the heads
            heads = Selection.first(groups * kernel.shape[axis] // self.groups)
            found[name] = {"kernel": pick(pick(kernel, reads[name], 0), heads, axis)}
            if bias is not None:
                bias = ops.convert_to_tensor(bias)
                found[name]["bias"] = pick(bias, heads) if axis else bias
        return found

    def check_key(self, given: bool):
        """Refuses a call without a key if the value, which takes its place, has other parts.

        Raises:
            ValueError: Naming the parts.
        """
        if not given and self._parts["key"] != self._parts["value"]:
            raise ValueError(
                f"Layer {self.name!r} is called without a key, so the value is the key, and their "
                "parts must be the same. Received: "
                f"value_parts={self.value_parts}, key_parts={self.key_parts}"
            )

    def _is_complete(self, percentage, groups):
        """Whether a call is that of the Keras class."""
        every_part = self._parts.values()
        reads_all = all(len(active_parts(x, percentage)) == sum(x) for x in every_part)
        return reads_all and groups == self.groups

    def call(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
    ):
        self.check_key(key is not None)
        percentage = current_percentage()
        every_head = needs_all_heads(self, query, attention_mask, return_attention_scores)
        groups = self.groups if every_head else self.active_groups(percentage)
        lent = None
        if not self._is_complete(percentage, groups):
            weights, reads = self.incomplete_weights(percentage, groups), self.reads(percentage)
            lent = {name: (reads[name], own) for name, own in weights.items()}
        token = _LENT.set(lent)
        try:
            return super().call(
                query,
                value,
                key=key,
                query_mask=query_mask,
                value_mask=value_mask,
                key_mask=key_mask,
                attention_mask=attention_mask,
                return_attention_scores=return_attention_scores,
                training=training,
                use_causal_mask=use_causal_mask,
            )
        finally:
            _LENT.reset(token)

    def get_config(self):
        def listed(x):
            return None if x is None else list(x)

        return {
            **super().get_config(),
            "query_parts": listed(self.query_parts),
            "value_parts": listed(self.value_parts),
            "key_parts": listed(self.key_parts),
            "percentages": listed(self.percentages),
        }


class _Projection(keras.layers.EinsumDense):
    """A projection that computes with what its layer lends it, or else with all of its weights."""

    def call(self, inputs, training=None):
        lent = _LENT.get()
        if lent is None:
            return super().call(inputs, training=training)
        reads, weights = lent[self.name]
        outputs = ops.einsum(self.equation, pick(inputs, reads, -1), weights["kernel"])
        if "bias" in weights:
            outputs = ops.add(outputs, weights["bias"])
        return self.activation(outputs)
