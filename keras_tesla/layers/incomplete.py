"""What all incomplete layers share: the profile and the number of active terms."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_tesla import profiles
from keras_tesla.channels import Selection, pick
from keras_tesla.integers import check_integer
from keras_tesla.percentages import active_terms, check_percentage, check_percentages

# To a type checker the mix-in is the layer that it completes.
_Layer: Any = keras.Layer if TYPE_CHECKING else object


class IncompleteDotProduct(_Layer):
    """Mix-in over a Keras layer with a kernel.

    With private numbers, which start at 0 and belong to one percentage p each,

    `y_j = activation(b_j + b_pj + sum_{i < k} gamma_i * (1 + c_pm) * w_ij * x_i)`

    where term i lies in block m: the percentages divide the terms into blocks, and each percentage
    reads one block more than the next lower one.

    After a concatenation the terms can have parts, one for each tensor that was concatenated. With
    `input_parts=(n_1, n_2, ..)` the dot product reads the first `max(1, floor(p / 100 * n_j))`
    terms of each part j instead of the first k of all. Each part has a profile of its own:
    coefficient i of part j is coefficient i of a profile of n_j terms.

    Args:
        profile: What `keras_tesla.profiles.get` takes. Default: `"all_one"`. An array holds the
            coefficients of all terms, of one part after the other.
        trainable_profile: Bool. If true the coefficients are a weight of shape `(terms,)` that
            starts at `profile` and is kept non-increasing in each part.
        percentages: Iterable of distinct ints, 1..100: what a `TESLA` model trains if it is given
            no others. Needed with `private_bias` and `private_profile`: those that get private
            numbers, which must include all that are trained.
        private_bias: Bool, whether each percentage has its own bias b_p in addition to the shared
            one.
        private_profile: Bool, whether each percentage has coefficients c_p of its own, one for each
            block of terms that it reads.
        complete: Bool, whether the layer reads all terms at every percentage, as the last layer of
            a network with private numbers does.
        input_parts: Iterable of positive ints whose sum is the number of terms, or None (default):
            all terms are one part.

    Attributes:
        trained_range: None (default), or two percentages `(low, high)`, 0 <= low < high <= 100. Of
            n channels, those from `active_terms(n, low)` (from 0 for low = 0) up to but excluding
            `active_terms(n, high)` are then in the range (of terms: these of each part), and
            gradients reach only: the kernel
            where its input channel and its output channel are, the bias where the output channel
            is, the trainable profile where the input channel is. It changes no output and is not
            saved. A compiled function must be compiled again (`TESLA.activate`).
        complete_outputs: Bool, default False: whether `trained_range` cuts only the inputs,
            because every percentage computes all outputs, as before a complete layer. The bias is
            then trained by a range that begins at 0.
    """

    def __init__(
        self,
        *args,
        profile="all_one",
        trainable_profile=False,
        percentages=None,
        private_bias=False,
        private_profile=False,
        complete=False,
        input_parts=None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if self.dtype_policy.quantization_mode is not None:
            raise ValueError(
                f"{type(self).__name__} does not run on a quantized dtype policy; quantize at "
                f"export instead. Received: dtype={self.dtype_policy.name!r}"
            )
        self.profile = profiles.get(profile)
        self.trainable_profile = trainable_profile
        self.percentages: Any = None if percentages is None else check_percentages(percentages)
        self.private_bias = private_bias
        self.private_profile = private_profile
        self.complete = complete
        self.input_parts = (
            None if input_parts is None else checked_parts("input_parts", input_parts)
        )
        self._check_private()
        self._private: dict = {}
        self.terms: Any = None
        self.parts: Any = None
        self.coefficients: Any = None
        self.trained_range = None
        self.complete_outputs = False

    def _check_private(self):
        if (self.private_bias or self.private_profile) and self.percentages is None:
            raise ValueError(
                f"Layer {self.name!r} has private numbers and must know for which percentages: "
                "pass `percentages=[100, 90, ..]`. Received: percentages=None"
            )
        if self.private_bias and not self.use_bias:
            raise ValueError(
                f"`private_bias` of layer {self.name!r} is added to its bias: it needs "
                "`use_bias=True`. Received: use_bias=False"
            )

    @property
    def trained_range(self) -> tuple[int, int] | None:
        """The percentages between which gradients reach the weights; None: all weights train."""
        return self._trained_range

    @trained_range.setter
    def trained_range(self, percentages):
        if percentages is not None:
            low, high = percentages
            if low != 0:
                check_percentage(low)
            if low >= check_percentage(high):
                raise ValueError(
                    "`trained_range` must be None or two percentages (low, high) with "
                    f"0 <= low < high. Received: {percentages}"
                )
        self._trained_range: Any = percentages

    def _build_profile(self, terms):
        """Fixes the number of terms of the complete dot product and their coefficients."""
        self.parts = self.input_parts or (terms,)
        if sum(self.parts) != terms:
            raise ValueError(
                f"`input_parts` of layer {self.name!r} must sum up to its {terms} input channels. "
                f"Received: {self.input_parts}, whose sum is {sum(self.parts)}"
            )
        values = profiles.of_parts(self.profile, self.parts)
        self.terms = terms
        if self.trainable_profile:
            self.coefficients = self.add_weight(
                name="profile",
                shape=(terms,),
                initializer=lambda shape, dtype: ops.convert_to_tensor(values, dtype),
                constraint=profiles.NonIncreasing(self.input_parts),
            )
        elif (values != 1).any():
            self.coefficients = values
        private = self.percentages if self.private_bias or self.private_profile else ()
        self._private = {p: self._build_private(p) for p in private}

    def _build_private(self, percentage):
        """Returns {name: variable} of the numbers that only `percentage` uses."""
        shapes = {}
        if self.private_bias:
            shapes["bias"] = self.bias.shape
        if self.private_profile:
            shapes["profile"] = self.blocks(percentage).shape
        return {
            name: self.add_weight(name=f"{name}_p{percentage}", shape=shape, initializer="zeros")
            for name, shape in shapes.items()
        }

    def active(self, percentage: int) -> Selection:
        """Returns which terms each dot product keeps at `percentage`: the first of each part."""
        if self.complete:
            return Selection.first(self.terms)
        return active_parts(self.parts, percentage)

    def active_terms(self, percentage: int) -> int:
        """Returns how many terms each dot product keeps at `percentage`."""
        return len(self.active(percentage))

    def blocks(self, percentage: int) -> np.ndarray:
        """Returns the numbers of terms in the blocks that are read at `percentage`.

        The cuts lie where the dot products of the layer's `percentages` end.
        """
        ends = {self.active_terms(p) for p in self.percentages if p <= percentage}
        return np.diff(sorted({0, *ends}))

    def private_variables(self, percentage: int) -> dict:
        """Returns {`"bias"`, `"profile"`: variable} of those that only `percentage` uses.

        Raises:
            ValueError: If the layer has private numbers, but none for it.
        """
        if self._private and percentage not in self._private:
            raise ValueError(
                f"Layer {self.name!r} has private numbers for {list(self.percentages)} percent. "
                f"Received: {percentage}. Pass it in `percentages` when the layer is made, or to "
                "`recalibrate`."
            )
        return self._private.get(percentage, {})

    def private_of_all(self, name: str) -> list:
        """Returns the private variables `"bias"` or `"profile"` of all percentages."""
        return [variables[name] for variables in self._private.values() if name in variables]

    def private_coefficients(self, percentage: int):
        """Returns `1 + c_p`, one for each of `blocks(percentage)`."""
        return 1 + ops.convert_to_tensor(self.private_variables(percentage)["profile"])

    def private_factors(self, percentage: int):
        """Returns the private coefficient of each term that is read at `percentage`: `(k,)`."""
        read = self.active(percentage).indices()
        narrower = {self.active(p) for p in self.percentages} - {self.active(percentage)}
        block = np.zeros(len(read), int)
        for terms in narrower:
            block += ~np.isin(read, terms.indices())
        return ops.take(self.private_coefficients(percentage), block)

    @property
    def profile_variables(self) -> list:
        """The variables that weigh terms: the trainable profile, and the private ones."""
        shared = [self.coefficients] if self.trainable_profile else []
        return shared + self.private_of_all("profile")

    def _is_complete(self, percentage):
        """Whether the layer is its Keras class at `percentage`."""
        return (
            self.coefficients is None
            and self.trained_range is None
            and not self._private
            and self.active_terms(percentage) == self.terms
        )

    def trained_bias(self, percentage: int):
        """Returns the bias `(outputs,)`; gradients reach its shared entries in `trained_range`."""
        bias = ops.convert_to_tensor(self.bias)
        if self.trained_range is not None:
            bias = _train(bias, self._bias_in_range(bias, self.trained_range[0] == 0))
        private = self.private_variables(percentage)
        return bias + ops.convert_to_tensor(private["bias"]) if "bias" in private else bias

    def _trained_kernel(self, kernel):
        """The kernel `(.., terms, outputs)`; gradients reach its entries in `trained_range`."""
        if self.trained_range is None:
            return kernel
        outputs = self._outputs_in_range(kernel.shape[-1], True)
        return _train(kernel, self._terms_in_range()[:, None] & outputs)

    def _trained_terms(self, kernel):
        """The kernel `(.., terms, multiplier)`; gradients reach its terms in `trained_range`."""
        if self.trained_range is None:
            return kernel
        return _train(kernel, self._terms_in_range()[:, None])

    def _bias_in_range(self, bias, complete):
        """Which entries of the bias train; `complete` for all of them with `complete_outputs`."""
        return self._outputs_in_range(bias.shape[0], complete)

    def _outputs_in_range(self, count, complete):
        """Which of `count` outputs train; `complete` for all of them with `complete_outputs`."""
        return np.full(count, complete) if self.complete_outputs else self._in_range(count)

    def _terms_in_range(self):
        """Which terms are in `trained_range`: bool array `(terms,)`."""
        return np.concatenate([self._in_range(size) for size in self.parts])

    def _in_range(self, count):
        """Which of `count` channels are in `trained_range`: bool array `(count,)`."""
        low, high = self._trained_range
        first = active_terms(count, low) if low else 0
        return (np.arange(count) >= first) & (np.arange(count) < active_terms(count, high))

    def incomplete_weights(self, percentage: int, private: bool = True) -> dict:
        """Returns {name: tensor} of the kernels that the stock layer runs with at `percentage`.

        Args:
            percentage: Int, 1..100.
            private: Bool, whether the private profile is folded in, as the shared one always is.
        """
        return {"kernel": self.incomplete_kernel(percentage, private)}

    def _incomplete(self, kernel, percentage, private):
        """The active terms of a kernel `(.., terms, outputs)`, profiles folded in."""
        active = self.active(percentage)
        kernel = pick(self._trained_kernel(kernel), active, -2)
        if self.coefficients is not None:
            coefficients = ops.convert_to_tensor(self.coefficients)
            if self.trainable_profile and self.trained_range is not None:
                coefficients = _train(coefficients, self._terms_in_range())
            kernel = kernel * ops.cast(pick(coefficients, active)[:, None], kernel.dtype)
        if private and self.private_profile:
            kernel = kernel * ops.cast(self.private_factors(percentage)[:, None], kernel.dtype)
        return kernel

    def _further_variables(self):
        """Returns {name: variable} of those that the Keras class lacks."""
        private = [v for numbers in self._private.values() for v in numbers.values()]
        return {
            v.name: v for v in ([self.coefficients] if self.trainable_profile else []) + private
        }

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Some of Keras' layers save the variables that they name, others save all of them.
        if self.built and len(store.keys()) < len(self.weights):
            for name, variable in self._further_variables().items():
                store[name] = variable

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if self.built:
            saved = set(store.keys())
            for name, variable in self._further_variables().items():
                if name in saved:
                    variable.assign(store[name])

    def get_config(self):
        return {
            **super().get_config(),
            "profile": profiles.serialize(self.profile),
            "trainable_profile": self.trainable_profile,
            "percentages": None if self.percentages is None else list(self.percentages),
            "private_bias": self.private_bias,
            "private_profile": self.private_profile,
            "complete": self.complete,
            "input_parts": None if self.input_parts is None else list(self.input_parts),
        }


def active_parts(parts, percentage: int) -> Selection:
    """Returns which channels are read at `percentage`: the first of each part.

    Args:
        parts: Numbers of channels, of one part after the other.
        percentage: Int, 1..100.
    """
    starts = np.cumsum((0, *parts)).tolist()
    return Selection.of(
        (start, start + active_terms(size, percentage))
        for start, size in zip(starts, parts, strict=False)
    )


def checked_parts(name: str, parts) -> tuple[int, ...]:
    """Returns the parts of channels that are given as the argument `name`.

    Raises:
        ValueError: If they are not an iterable of positive ints.
    """
    if isinstance(parts, (str, dict)) or not isinstance(parts, Iterable) or not (parts := [*parts]):
        raise ValueError(
            f"`{name}` must be None or the numbers of input channels of the tensors that were "
            f"concatenated, for example (64, 32). Received: {parts!r}"
        )
    return tuple(check_integer(name, part) for part in parts)


def _train(weight, mask):
    """The weight, with gradients only where the mask is true."""
    return ops.where(mask, weight, ops.stop_gradient(weight))
