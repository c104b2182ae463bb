"""Opening a .tflite file with XNNPACK's weights cached on disk.

XNNPACK packs weights into its own layout when a file is opened. If the packed weights are kept in a
cache file, they are mapped at the next start: the system can reclaim their memory, and processes
share it.
"""

from keras_tesla.tflite.compiled import raw, read


class CachedRunner:
    """Runs the signature of a file with LiteRT's CompiledModel.

    Args:
        path: A .tflite file with one signature, `serving_default`.
        cache: Path of the weight cache; XNNPACK writes it if none fits.
        threads: Int, number of CPU threads of a call.
    """

    def __init__(self, path, cache, threads: int):
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.cpu_options import CpuOptions
        from ai_edge_litert.options import Options

        options = Options(
            cpu_options=CpuOptions(num_threads=threads, xnnpack_weight_cache_path=str(cache))
        )
        self._model = CompiledModel.from_file(str(path), options=options)
        (key,) = self._model.get_signature_list()
        self._key = key
        self._outputs = self._model.get_output_tensor_details(key)
        inputs = self._model.get_input_tensor_details(key)
        self._into = {n: self._model.create_input_buffer_by_name(key, n) for n in inputs}
        self._out = {n: self._model.create_output_buffer_by_name(key, n) for n in self._outputs}

    def __call__(self, **feeds):
        for name, array in feeds.items():
            self._into[name].write(raw(array))
        self._model.run_by_name(self._key, self._into, self._out)
        return {name: read(self._out[name], detail) for name, detail in self._outputs.items()}
