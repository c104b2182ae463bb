"""What a storage decides: what the graphs of a file share, how each becomes a standalone file."""

import abc
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from keras_tesla.tflite.files.header import Recipe
from keras_tesla.tflite.graphs.merge import External
from keras_tesla.tflite.graphs.nested import NestedLayout
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph
from keras_tesla.tflite.storages.part import Part, check_range, run_of, without_constants


class Storage(abc.ABC):
    """How one file holds the weights of several percentages.

    A storage rewrites the graphs before they are merged, writes the recipe by which each percentage
    becomes a standalone file, and follows it. A new storage is a subclass in its own module and a
    line in `keras_tesla.tflite.storages`.

    Attributes:
        name: Its name in `export(storage=)` and in the header.
        private_apart: Bool, whether a percentage's private profile must stay out of its kernels,
            which would otherwise differ at every percentage.
    """

    name: ClassVar[str]
    private_apart: ClassVar[bool] = False

    @abc.abstractmethod
    def needs_floats(self, quantization: str | None) -> bool:
        """Whether it also needs quantized percentages in float32."""

    @abc.abstractmethod
    def rewrite(
        self, graphs: list[PercentageGraph], floats: list[PercentageGraph], quantization: str | None
    ) -> tuple[list[PercentageGraph], list[dict]]:
        """Returns the graphs that go into the file, and the weights that they do not share.

        Args:
            graphs: Those of the converter, from the lowest to the highest percentage. They may be
                changed.
            floats: The same in float32 where `needs_floats`, else empty.
            quantization: None, `"dynamic_range"` or `"int8"`.

        Returns:
            The graphs in the same order, and
            [{"weight": name, "percentage": int, "bytes": int, "reason": str}, ..]: the weights that
            could not be shared.
        """

    def nested_layouts(self, graphs: list[PercentageGraph]) -> list[NestedLayout]:
        """Returns the layouts to which the recipes of all percentages refer."""
        return []

    def recipe(
        self, part: Part, source: Callable[[Any], External | None], offset: Callable, layouts: list
    ) -> Recipe:
        """Returns how a file makes a percentage standalone.

        Args:
            part: The percentage.
            source: Function of a tensor, as in `Constant`, that returns where the file has its
                bytes; a nested weight's are at the index after those of the graph, in their order.
            offset: Function of an `External` that returns its offset in the file.
            layouts: From `nested_layouts`.
        """
        return part.recipe([[c.offset, offset(source(c.tensor)), c.size] for c in part.constants()])

    def standalone(self, content, recipe: Recipe, layouts: list[dict]) -> bytes:
        """Returns a percentage of a file as a plain .tflite file.

        Args:
            content: All bytes of the file, or an object with their number that returns slices of
                them.
            recipe: From the file's header; it may come from anywhere.
            layouts: The header's `nested_layouts`.

        Raises:
            ValueError: If the recipe asks for what is not in the file; also other errors, if it is
                no recipe.
        """
        # Written in place: besides the result, only one weight takes memory.
        made = without_constants(content, recipe)
        for target, data in self._weights(content, recipe, layouts):
            check_range(target, data.nbytes, recipe.bytes)
            made.seek(target)
            made.write(data)
        return made.getvalue()

    def _weights(self, content, recipe, layouts) -> Iterator[tuple[int, memoryview]]:
        """Yields (offset in the result, constant) for each constant of a percentage."""
        for target, source, count in recipe.copies:
            yield target, run_of(content, source, count)
