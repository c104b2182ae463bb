"""Running the drafts of an export in LiteRT, measuring them, and finishing them.

Every percentage of every file is run in the Interpreter, with and without XNNPACK, and in
CompiledModel. A percentage that can be taken out of its file is run that way too, and that is what
is measured: it is what `keras_tesla.tflite.load` opens.
"""

import dataclasses

import numpy as np

from keras_tesla.tflite import runtime, standalone, verify
from keras_tesla.tflite.converted import Converted
from keras_tesla.tflite.files.header import Header, Measures
from keras_tesla.tflite.files.writing import Draft
from keras_tesla.tflite.graphs import structure
from keras_tesla.tflite.verify import Interpreted


@dataclasses.dataclass(frozen=True, eq=False)
class File:
    """A file of an export.

    Args:
        name: Of the file in the folder.
        draft: Its bytes, not finished.
        converted: Its percentages, from the highest to the lowest.
        percentage_input: Bool, whether it takes the percentage as an input.
    """

    name: str
    draft: Draft
    converted: list[Converted]
    percentage_input: bool = False

    def cases(self) -> list[verify.Case]:
        """Returns what it must compute: first each percentage by its signature."""
        header = self.draft.header
        cases = [
            converted.case(entry.signature)
            for converted, entry in zip(self.converted, header.percentages, strict=True)
        ]
        return cases + list(_asked(self.converted) if self.percentage_input else ())


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """A file of an export, verified.

    Args:
        name: Of the file in the folder.
        content: Its bytes.
        header: What it says of itself.
    """

    name: str
    content: bytes
    header: Header


def finish(files: list[File], validation) -> list[Finished]:
    """Returns files that compute what they must, with what was measured in their headers.

    Args:
        files: The files.
        validation: ({input name: array}, class of each example) or None.

    Raises:
        VerificationError: If a file computes something else than Keras.
        StructureError: If a flatbuffer is malformed.
    """
    runs = [_run(file, validation) for file in files]
    # To start a process takes longer than to run a file, so CompiledModel gets all of them at once.
    whole = [run.whole for run in runs]
    differences = verify.compile_all(whole + [part for run in runs for part in run.parts])
    finished = []
    for file, run, worst in zip(files, runs, differences[: len(files)], strict=True):
        header = file.draft.header
        percentages = tuple(
            dataclasses.replace(
                entry,
                measures=dataclasses.replace(made, max_abs_difference=float(f"{difference:.3g}")),
            )
            for entry, made, difference in zip(
                header.percentages, run.measures, worst[: len(run.measures)], strict=True
            )
        )
        header = dataclasses.replace(header, percentages=percentages)
        finished.append(Finished(file.name, file.draft.finish(header), header))
    return finished


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """What the Interpreter made of a file, and of the percentages that were taken out of it."""

    whole: Interpreted
    parts: list[Interpreted]
    measures: list[Measures]


def _run(file: File, validation) -> _Run:
    content, header = file.draft.content, file.draft.header
    structure.check(content)
    whole, made = verify.interpret(content, file.cases())
    if header.storage is None:
        return _Run(whole, [], [_measures(whole, made, validation)])
    del made  # it holds the weights of all percentages
    values = header.values()
    parts = [_run_part(content, values, converted, validation) for converted in file.converted]
    return _Run(whole, [part for part, _ in parts], [measures for _, measures in parts])


def _run_part(content, values, converted, validation) -> tuple[Interpreted, Measures]:
    taken_out = standalone.extract(content, values, converted.percentage)
    part, made = verify.interpret(taken_out, [converted.case(None)])
    return part, _measures(part, made, validation)


def _measures(run: Interpreted, made, validation) -> Measures:
    """What one percentage's file takes and does, but for the differences from Keras."""
    accuracy = None
    if validation is not None:
        inputs, labels = validation
        (scores,) = runtime.run(made, inputs).values()
        accuracy = round(float(np.mean(scores.argmax(-1) == labels)), 6)
    latency = float(f"{runtime.latency(made, run.cases[0].inputs):.4g}")
    return Measures(bytes=len(run.content), accuracy=accuracy, latency=latency)


def _asked(converted: list[Converted]):
    """Each percentage asked for as an input, and what lies between, above and below them."""
    above = converted[0]
    yield above.asked(2**31 - 1)
    for each in converted:
        yield each.asked(each.percentage)
        if each is not above and above.percentage > each.percentage + 1:
            yield above.asked(each.percentage + 1)
        above = each
    yield above.asked(-(2**31))
