"""Makes a Keras model incomplete and saves it as a TESLA model; nothing is trained.

keras-tesla convert trained.keras --output=tesla.keras --percentages=100,75,50,25

Says in ten lines what became of the layers and what the percentages cost; --report says it of each
layer. At 100 % the network computes what it did; at the others it is to be trained on: see
`keras-tesla train`.
"""

import collections
import textwrap

from absl import flags

from keras_tesla_cli import lists, models, outputs, tool

FLAGS = flags.FlagValues()
models.define_flags(FLAGS)
flags.DEFINE_string("output", None, "The .keras file to be written.", FLAGS, required=True)
flags.DEFINE_list("percentages", ["100", "75", "50", "25"], "Those to be trained.", FLAGS)
flags.DEFINE_bool("order_channels", True, "Whether important channels come first.", FLAGS)
flags.DEFINE_string("profile", "all_one", "Profile of the incomplete layers.", FLAGS)
flags.DEFINE_list("skip", [], "Names of layers to leave as they are.", FLAGS)
flags.DEFINE_bool("report", False, "Whether to say of each layer what it became.", FLAGS)
flags.DEFINE_bool("overwrite", False, "Whether to replace the output.", FLAGS)

_SHOWN = 4  # percentages of the summary


def main(arguments):
    """Converts a model; see the flags."""
    path = models.path_of(arguments, FLAGS)
    output = outputs.check_file(FLAGS.output, FLAGS.overwrite, ".keras")
    percentages = lists.percentages(FLAGS.percentages)
    model = models.load(path, FLAGS.custom)
    import keras_tesla as kt

    if isinstance(model, kt.TESLA):
        raise tool.UsageError(
            f"{path} is a TESLA model already. To train it: keras-tesla train {path}"
        )
    if FLAGS.order_channels:
        model = kt.order_channels(model)
    model = kt.to_idp(model, percentages, profile=FLAGS.profile, skip=FLAGS.skip)
    tesla = kt.TESLA(model, percentages)
    if FLAGS.report:
        print(model.conversion_report)
        if _is_known(tesla.network):
            kt.summary(tesla)
    else:
        print("\n".join(_summary(model, tesla)))
    outputs.save(tesla, output)
    print(f"wrote {output}; next: keras-tesla train {output} --data=DATA.npz")


def _summary(model, tesla):
    """Yields lines on the layers and the cost of the network."""
    rows = model.conversion_report
    became = collections.Counter(row.became for row in rows if row.became != row.kind)
    stays = collections.Counter(row.kind for row in rows if row.became == row.kind)
    yield f"{model.name}: {sum(became.values())} of {len(rows)} layers became incomplete"
    for label, counted in (("became", became), ("stays", stays)):
        text = ", ".join(f"{name} {count}" for name, count in counted.most_common())
        yield f"  {label:<7}" + textwrap.shorten(text or "none", 71, placeholder=" ..")
    yield f"  {'%':>3} {'multiply-adds':>15} {'of 100 %':>9} {'parameters':>13} {'of 100 %':>9}"
    costs = {p: _cost(tesla.at(p)) for p in _spread(tesla.percentages)}
    for percentage, cost in costs.items():
        adds, share = ("-", "-") if cost[0] is None else _counted(cost[0], costs[100][0])
        weights, of_weights = _counted(cost[1], costs[100][1])
        yield f"  {percentage:>3} {adds:>15} {share:>9} {weights:>13} {of_weights:>9}"
    if uncounted := _uncounted(tesla.at(100)):
        text = f"without the multiply-adds of {', '.join(uncounted)}: not known"
        yield "  " + textwrap.shorten(text, 78, placeholder=" ..")
    yield "each layer: --report; at less than 100 % the network is to be trained"


def _counted(count, whole) -> tuple[str, str]:
    return f"{count:,}", f"{100 * count / whole:.1f}"


def _cost(narrowed) -> tuple[int | None, int]:
    """The multiply-adds, None where they depend on a dimension that is not known, and weights."""
    from keras_tesla.analysis import multiply_adds

    adds = multiply_adds(narrowed) if _is_known(narrowed) else None
    return adds, narrowed.count_params()


def _uncounted(narrowed) -> list[str]:
    """The layers whose multiply-adds nobody knows."""
    from keras_tesla.analysis import not_counted

    return not_counted(narrowed) if _is_known(narrowed) else []


def _is_known(model) -> bool:
    """Whether the multiply-adds of an example are: all dimensions but the batch."""
    return all(None not in x.shape[1:] for x in model.inputs)


def _spread(percentages):
    """The highest, the lowest and some between, evenly."""
    last = len(percentages) - 1
    if last < _SHOWN:
        return percentages
    return [percentages[round(i * last / (_SHOWN - 1))] for i in range(_SHOWN)]
