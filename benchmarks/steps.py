"""What `training_step.py` measures: networks, methods, and one step of each.

Networks, all of stock Keras layers, made incomplete by `kt.to_idp` (first layer complete):

    mlp          784-512-512-10, batch 128
    cnn          3x3 convolutions 64, 64, 128, 128, 256, 256, a pool after each pair, global
                 pooling, Dense 10, on 32x32x3, batch 128
    vgg16        the papers' network for 32x32 images, with batch normalization, batch 32
    mobilenet_v2 `keras.applications.MobileNetV2` on 64x64x3, 10 classes, batch 16

Methods:

    plain     one step of the network at 100 %, stock layers
    tesla     one TESLA step at all percentages
    mask      the same training in stock Keras: zeros in place of slices, one output a percentage
              (networks that are a sequence of layers)
    separate  one step of each of the plain networks `tesla.at(p)`, one after the other
    us_net    PyTorch, without Keras: layers that slice their weights, one backward pass for each
              width, as universally slimmable networks are trained (mlp and cnn)
    us_plain  PyTorch, without Keras: one step at full width
"""

import itertools
import math

import keras
import numpy as np

import keras_tesla as kt

PERCENTAGES = {4: (100, 75, 50, 25), 10: tuple(range(100, 0, -10))}
_BATCH = {"mlp": 128, "cnn": 128, "vgg16": 32, "mobilenet_v2": 16}
_CLASSES = 10
_CNN = (64, 64, 128, 128, 256, 256)
NETWORKS = tuple(_BATCH)
METHODS = ("plain", "tesla", "mask", "separate", "us_plain", "us_net")


def batch(network: str):
    """Returns a random batch (x, y)."""
    shape = {"mlp": (784,), "mobilenet_v2": (64, 64, 3)}.get(network, (32, 32, 3))
    random = np.random.default_rng(0)
    x = random.normal(size=(_BATCH[network], *shape)).astype("float32")
    return x, random.integers(_CLASSES, size=len(x)).astype("int32")


def _network(network):
    if network == "mlp":
        layers = [keras.layers.Dense(512, activation="relu") for _ in range(2)]
        return keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(_CLASSES)])
    if network == "cnn":
        layers = []
        for number, width in enumerate(_CNN):
            layers.append(keras.layers.Conv2D(width, 3, padding="same", activation="relu"))
            if number % 2:
                layers.append(keras.layers.MaxPooling2D())
        layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(_CLASSES)]
        return keras.Sequential([keras.Input((32, 32, 3)), *layers])
    if network == "vgg16":
        tesla = kt.TESLA(kt.literature.vgg16(_CLASSES, [100], dropout=(0, 0, 0)), [100])
        return tesla.at(100)
    return keras.applications.MobileNetV2(
        (64, 64, 3), weights=None, classes=_CLASSES, classifier_activation=None
    )


def tesla_model(network: str, count: int) -> kt.TESLA:
    """Returns a network with 4 or 10 percentages."""
    return kt.TESLA(kt.to_idp(_network(network), PERCENTAGES[count]), PERCENTAGES[count])


def multiply_adds(tesla: kt.TESLA) -> dict[str, float]:
    """Returns {method: multiply-adds of a step over those of a plain one}.

    With M_p those of `tesla.at(p)` and S the part of M_100 in the layers that do not depend on the
    percentage, which TESLA runs once: `(S + sum over p of (M_p - S_p)) / M_100`. Masks multiply
    by zeros; the shared part is run once there, too.
    """
    shared_layers = _shared_layers(tesla)
    total, own = [], []
    for percentage in tesla.percentages:
        narrowed = tesla.at(percentage)
        total.append(kt.analysis.multiply_adds(narrowed))
        own.append(total[-1] - _of_layers(narrowed, shared_layers))
    shared = total[0] - own[0]
    return {
        "tesla": (shared + sum(own)) / total[0],
        "mask": (shared + len(own) * own[0]) / total[0],
        "separate": sum(total) / total[0],
        "us_net": sum(total) / total[0],  # it runs the first layer for each width
    }


def _shared_layers(tesla):
    plan = kt.narrowing.plan.narrow(tesla.graph, 100)
    return {s.call.operation.name for s in plan.steps if not s.depends}


def _of_layers(model, names):
    from keras_tesla import graph
    from keras_tesla.analysis.cost import of_call

    return sum(
        of_call(call)
        for call in graph.read(model).calls
        if getattr(call.operation, "name", None) in names
    )


def _masked(network, percentages):
    """The training of TESLA with stock layers: inputs that are left out are zero."""
    layers = _network(network).layers
    x = inputs = keras.Input(batch(network)[0].shape[1:])
    layers = [x for x in layers if not isinstance(x, keras.layers.InputLayer)]

    def kept(x, percentage):
        mask = np.arange(x.shape[-1]) < kt.active_terms(x.shape[-1], percentage)
        return keras.layers.Rescaling(mask.astype("float32"))(x)

    x = layers[0](x)
    outputs = {}
    for percentage in percentages:
        y = x
        for layer in layers[1:]:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer = keras.layers.BatchNormalization()  # statistics of its own
            y = layer(kept(y, percentage) if hasattr(layer, "kernel") else y)
        outputs[f"p{percentage}"] = y
    return keras.Model(inputs, outputs)


def stepper(network: str, method: str, count: int, jit, steps: int = 1, kept: list | None = None):
    """Returns a function that takes some training steps of a method and waits for the last loss.

    The train function that `fit` calls is run on a batch that is on the device already: `fit` and
    `train_on_batch` would add the same input pipeline to all sides, which hides a part of a ratio.

    Args:
        network: One of `NETWORKS`.
        method: One of `METHODS`.
        count: Number of percentages, 4 or 10.
        jit: Bool, `jit_compile`.
        steps: Int, training steps of a call.
        kept: Gets the bytes of all weights and variables of optimizers.

    Returns:
        The function, or None for a method that the network or the backend does not have.
    """
    x, y = batch(network)
    kept = [] if kept is None else kept
    if method.startswith("us_"):
        if keras.backend.backend() != "torch" or network not in ("mlp", "cnn"):
            return None
        percentages = PERCENTAGES[count] if method == "us_net" else (100,)
        return _us_net(network, x, y, percentages, steps, kept)

    def run_of(model, outputs=()):
        return _keras_stepper(model, x, y, jit, steps, kept, outputs)

    if method == "plain":
        return run_of(_network(network))
    tesla = tesla_model(network, count)
    if method == "tesla":
        return run_of(tesla)
    if method == "separate":
        runs = [run_of(tesla.at(p)) for p in tesla.percentages]
        return lambda: [run() for run in runs]
    if network == "mobilenet_v2":
        return None
    masked = _masked(network, tesla.percentages)
    return run_of(masked, [f"p{p}" for p in tesla.percentages])


def _keras_stepper(model, x, y, jit, steps, kept, outputs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if outputs:
        loss, y = dict.fromkeys(outputs, loss), dict.fromkeys(outputs, y)
    model.compile("adam", loss, jit_compile=jit)
    model.train_on_batch(x, y)  # creates all state and the train function
    variables = (*model.weights, *model.optimizer.variables)
    kept.append(sum(4 * math.prod(v.shape) for v in variables))
    on_device = keras.tree.map_structure(keras.ops.convert_to_tensor, (x, y))
    state = ()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        batches = iter(tf.data.Dataset.from_tensors(on_device).repeat())
    elif keras.backend.backend() == "jax":
        batches = itertools.repeat(on_device)
        parts = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        # Copies: the train function gives the buffers away.
        state = tuple([keras.ops.copy(v.value) for v in part] for part in parts)
    else:
        batches = [on_device]

    def run():
        nonlocal state
        for _ in range(steps):
            if state:
                logs, state = model.train_function(state, batches)
            else:
                logs = model.train_function(batches)
        float(keras.ops.convert_to_numpy(logs["loss"]))

    return run


def _us_net(network, x, y, percentages, steps, kept):
    """Steps of a network whose layers slice their weights, in PyTorch only."""
    import torch
    from torch.nn import functional

    x = torch.from_numpy(x if network == "mlp" else x.transpose(0, 3, 1, 2).copy())
    y = torch.from_numpy(y).long()
    widths = (512, 512) if network == "mlp" else _CNN
    sizes = list(zip((x.shape[1], *widths), (*widths, _CLASSES), strict=True))
    weights = []
    for number, (inputs, outputs) in enumerate(sizes):
        kernel = (3, 3) if network == "cnn" and number < len(widths) else ()
        weight = torch.empty(outputs, inputs, *kernel)
        torch.nn.init.kaiming_normal_(weight)
        weights.append((torch.nn.Parameter(weight), torch.nn.Parameter(torch.zeros(outputs))))
    flat = [w for pair in weights for w in pair]
    optimizer = torch.optim.Adam(flat)
    kept.append(3 * sum(w.numel() * w.element_size() for w in flat))  # Adam has two for each

    def forward(percentage):
        value = x
        for number, (weight, bias) in enumerate(weights):
            last = number == len(weights) - 1
            outputs = _CLASSES if last else kt.active_terms(weight.shape[0], percentage)
            weight, bias = weight[:outputs, : value.shape[1]], bias[:outputs]
            if weight.dim() == 2:
                value = functional.linear(value, weight, bias)
            else:
                value = functional.conv2d(value, weight, bias, padding=1)
            if last:
                return value
            value = functional.relu(value)
            if network == "cnn" and number % 2:
                value = functional.max_pool2d(value, 2)
            if network == "cnn" and number == len(weights) - 2:
                value = value.mean((2, 3))
        return value

    def run():
        for _ in range(steps):
            optimizer.zero_grad()
            for percentage in percentages:
                loss = functional.cross_entropy(forward(percentage), y)
                loss.backward()
            optimizer.step()
        float(loss.detach())

    return run
