"""Each weight once for all percentages."""

from keras_tesla.tflite.graphs import sharing
from keras_tesla.tflite.graphs.nested import NestedLayout
from keras_tesla.tflite.storages.part import run_of
from keras_tesla.tflite.storages.storage import Storage


class Shared(Storage):
    """Each weight once; leading blocks of a weight are stored nested.

    With `"dynamic_range"` the weights of the highest percentage are int8 and become float32 when
    the file is opened, so all percentages compute in float32.
    """

    name = "shared"
    private_apart = True

    def needs_floats(self, quantization):
        # Rounding hides that one weight is the beginning of another.
        return quantization is not None

    def rewrite(self, graphs, floats, quantization):
        if quantization == "dynamic_range":
            return floats, sharing.share_weights(floats, floats, quantized=graphs[-1])
        return graphs, sharing.share_weights(graphs, floats or graphs)

    def nested_layouts(self, graphs):
        return list(dict.fromkeys(w.layout for graph in graphs for w in graph.nested.values()))

    def recipe(self, part, source, offset, layouts):
        nested, first = part.graph.nested, len(part.graph.subgraph.tensors)
        stored = {tensor: first + number for number, tensor in enumerate(nested)}
        copies, nested_weights = [], []
        for tensor, target, size in part.constants():
            if tensor in nested:
                weight = nested[tensor]
                start = offset(source(stored[tensor]))
                layout = layouts.index(weight.layout)
                nested_weights.append([target, start, layout, weight.level])
            else:
                copies.append([target, offset(source(tensor)), size])
        return part.recipe(copies, nested_weights)

    def _weights(self, content, recipe, layouts):
        yield from super()._weights(content, recipe, layouts)
        for target, source, index, level in recipe.nested_weights:
            layout = NestedLayout(**layouts[index])
            stored = run_of(content, source, layout.size(level))
            yield target, layout.load(stored, level).data
