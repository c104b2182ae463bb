"""RandomPercentages: every step trains different percentages."""

import keras
import numpy as np

from keras_tesla.callbacks import checks
from keras_tesla.integers import check_integer
from keras_tesla.percentages import check_percentages


class RandomPercentages(keras.callbacks.Callback):
    """Trains some of a `TESLA` model's percentages in each step, drawn at random.

    With the defaults this is the sandwich rule of universally slimmable networks: the widest and
    the narrowest percentage and two random ones per step, so that a model trains at every
    percentage of `TESLA(model, percentages=range(10, 101))` for the price of four. `always=()`
    with `count=1` draws one random task per step, uniformly or from the distribution that you
    expect in use.

    Each set of percentages that trains together is compiled once. To keep the number of sets small,
    they are drawn when training begins, as shuffled decks: without `probabilities` each percentage
    is in as many sets as any other. Each step takes one of them at random.

    Args:
        count: Int, at least 1, percentages drawn for a step.
        always: Percentages that train in every step. Default: the widest and the narrowest.
        probabilities: Dict {percentage: positive weight} of the drawn ones, for example how often
            each will run on the phone; need not sum to 1. Default: uniform over all others.
        sets: Int, at least 1, the minimum number of sets.
        validation_percentages: Iterable of ints that validation runs at. Default: all of the
            model's.
        seed: Int.

    Raises:
        ValueError: At construction: a count below 1, weights that are not positive. When `fit`
            begins: a model that is not a `TESLA`; percentages that are not among its own; more to
            draw than there are.

    Reference:
        Yu, Huang: Universally Slimmable Networks and Improved Training Techniques, 2019,
        https://arxiv.org/abs/1903.05134
    """

    def __init__(
        self,
        count=2,
        always=None,
        probabilities=None,
        sets=32,
        validation_percentages=None,
        seed=0,
    ):
        super().__init__()
        if probabilities is not None:
            checks.check_probabilities(probabilities)
        self.count = check_integer("count", count)
        self.always = always if always is None else tuple(always)
        self.probabilities = probabilities
        self.sets = check_integer("sets", sets)
        self.validation_percentages = validation_percentages
        self.seed = seed
        self._menu: list[tuple[int, ...]] = []
        self._validated: tuple[int, ...] = ()
        self._steps = np.random.default_rng(seed)

    def on_train_begin(self, logs=None):
        checks.check_model(self)
        known = self.model.percentages
        always = (known[0], known[-1]) if self.always is None else self.always
        drawn = self.probabilities or {p: 1.0 for p in known if p not in always}
        validated = known if self.validation_percentages is None else self.validation_percentages
        self._validated = check_percentages(validated)
        unknown = sorted({*always, *drawn, *self._validated} - set(known))
        if unknown:
            raise ValueError(
                f"The model's percentages are {list(known)}. Received in addition: {unknown}"
            )
        drawn = {p: w for p, w in drawn.items() if p not in always}
        if len(drawn) < self.count:
            raise ValueError(
                f"{self.count} percentages must be drawn from {sorted(drawn)}: pass a smaller "
                "`count`, or fewer in `always`."
            )
        rng = np.random.default_rng(self.seed)
        decks = self._weighted(rng, drawn) if self.probabilities else self._uniform(rng, drawn)
        self._menu = [check_percentages({*always, *(int(p) for p in deck)}) for deck in decks]

    def _uniform(self, rng, drawn):
        """Sets in which every percentage comes equally often, but for the rest of the last deck."""
        sets: list[tuple[int, ...]] = []
        while len(sets) < self.sets:
            deck = rng.permutation(list(drawn))
            sets += [tuple(deck[i : i + self.count]) for i in range(0, len(deck), self.count)]
        return sets

    def _weighted(self, rng, drawn):
        weights = np.array(list(drawn.values()))
        return [
            rng.choice(list(drawn), self.count, replace=False, p=weights / weights.sum())
            for _ in range(self.sets)
        ]

    def on_epoch_begin(self, epoch, logs=None):
        # From the epoch, so that a run that continues after a kill draws what it would have drawn.
        self._steps = np.random.default_rng((self.seed, epoch))

    def on_train_batch_begin(self, batch, logs=None):
        self.model.activate(self._menu[self._steps.integers(len(self._menu))])

    def on_test_begin(self, logs=None):
        if self._menu:  # inside of `fit`
            self.model.activate(self._validated)

    def on_train_end(self, logs=None):
        self._menu = []
        self.model.activate(self.model.percentages)
