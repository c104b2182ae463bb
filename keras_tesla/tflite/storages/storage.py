"""What a storage decides: the graphs of a file, what they share, how a percentage is taken out."""

import abc
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from keras_tesla.tflite.files.header import Recipe
from keras_tesla.tflite.graphs.leaf import Leaf
from keras_tesla.tflite.graphs.merge import External
from keras_tesla.tflite.storages.part import Part, check_range, run_of, unfolded


class Storage(abc.ABC):
    """How one file holds the weights of several percentages.

    A storage rewrites the graphs before they are merged, writes the recipe by which each percentage
    is taken out again, and follows it. A new one is a subclass in a module of its own and a line in
    `keras_tesla.tflite.storages`.

    Attributes:
        name: What `export(storage=)` and the header call it.
        private_apart: Bool, whether a percentage's private profile must stay out of its kernels,
            which would otherwise differ at every percentage.
    """

    name: ClassVar[str]
    private_apart: ClassVar[bool] = False

    @abc.abstractmethod
    def needs_floats(self, quantization: str | None) -> bool:
        """Whether it needs quantized percentages in float32 too."""

    @abc.abstractmethod
    def graphs(
        self, leaves: list[Leaf], floats: list[Leaf], quantization: str | None
    ) -> tuple[list[Leaf], list[dict]]:
        """Returns the graphs that go into the file, and what they do not share.

        Args:
            leaves: What the converter made, from the lowest to the highest percentage. They may be
                rewritten.
            floats: The same in float32 where `needs_floats`, else empty.
            quantization: None, `"dynamic_range"` or `"int8"`.

        Returns:
            The graphs in the same order, and
            [{"weight": name, "percentage": int, "bytes": int, "reason": str}, ..]: the weights that
            should be shared and need bytes of their own.
        """

    def forms(self, leaves: list[Leaf]) -> list[Any]:
        """Returns what the recipes of all percentages refer to, the header's `shells`."""
        return []

    def recipe(
        self, part: Part, source: Callable[[int], External | None], place: Callable, forms: list
    ) -> Recipe:
        """Returns how a percentage is taken out of the file.

        Args:
            part: What must result.
            source: Function of the index of a tensor that returns where the file has its bytes;
                a nested weight's are at the index after those of the graph, in their order.
            place: Function of an `External` that returns its offset in the file.
            forms: From `forms`.
        """
        return part.recipe([[c.place, place(source(c.tensor)), c.size] for c in part.constants()])

    def take_out(self, content, recipe: Recipe, forms: list[dict]) -> bytes:
        """Returns a percentage of a file as a plain .tflite file.

        Args:
            content: All bytes of the file, or what has their number and returns slices of them.
            recipe: From the file's header; it may come from anywhere.
            forms: The header's `shells`.

        Raises:
            ValueError: If the recipe asks for what is not in the file; also other errors, if it is
                no recipe.
        """
        # Written in place: beside the result there is memory for one weight only.
        made = unfolded(content, recipe)
        for to, data in self._weights(content, recipe, forms):
            check_range(to, data.nbytes, recipe.length)
            made.seek(to)
            made.write(data)
        return made.getvalue()

    def _weights(self, content, recipe, forms) -> Iterator[tuple[int, memoryview]]:
        """Yields the constants of a percentage and where they go."""
        for to, source, count in recipe.copies:
            yield to, run_of(content, source, count)
