"""Each weight once for all percentages."""

from keras_tesla.tflite.graphs import share
from keras_tesla.tflite.graphs.nested import Shells
from keras_tesla.tflite.storages.part import run_of
from keras_tesla.tflite.storages.storage import Storage


class Shared(Storage):
    """Each weight once; those that are corners of the highest percentage's are stored nested.

    With `"dynamic_range"` the weights of the highest percentage are int8 and become float32 when
    the file is opened, so that all percentages are computed in float32.
    """

    name = "shared"
    private_apart = True

    def needs_floats(self, quantization):
        # Rounding hides that one weight is the beginning of another.
        return quantization is not None

    def graphs(self, leaves, floats, quantization):
        if quantization == "dynamic_range":
            return floats, share.share(floats, floats, codes=leaves[-1])
        return leaves, share.share(leaves, floats or leaves)

    def forms(self, leaves):
        return list(dict.fromkeys(w.shells for leaf in leaves for w in leaf.nested.values()))

    def recipe(self, part, source, place, forms):
        nested, first = part.leaf.nested, len(part.leaf.graph.tensors)
        stored = {tensor: first + number for number, tensor in enumerate(nested)}
        copies, corners = [], []
        for tensor, to, size in part.constants():
            if tensor in nested:
                weight = nested[tensor]
                start = place(source(stored[tensor]))
                corners.append([to, start, forms.index(weight.shells), weight.level])
            else:
                copies.append([to, place(source(tensor)), size])
        return part.recipe(copies, corners)

    def _weights(self, content, recipe, forms):
        yield from super()._weights(content, recipe, forms)
        for to, source, number, level in recipe.corners:
            form = Shells(**forms[number])
            stored = run_of(content, source, form.size(level))
            yield to, form.load(stored, level).data
