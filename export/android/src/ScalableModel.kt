package kerastesla

import android.content.res.AssetManager
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.Environment
import com.google.ai.edge.litert.TensorBuffer
import java.io.File

/**
 * A network that runs at any percentage of its export, with the CompiledModel API of LiteRT.
 *
 * Inputs and outputs are arrays by name: FloatArray for float32, IntArray for int32, LongArray for
 * int64, ByteArray for int8, BooleanArray for bool. Not thread-safe.
 *
 * @param manifest of the export
 * @param open compiles one of its files; is called when a file is needed for the first time
 * @param clock nanoseconds
 */
class ScalableModel(
    val manifest: Manifest,
    private val open: (file: String) -> CompiledModel,
    private val clock: () -> Long = System::nanoTime,
) : AutoCloseable {
    private class Buffers(
        val inputs: Map<String, TensorBuffer>,
        val outputs: Map<String, TensorBuffer>,
    )

    private val models = mutableMapOf<String, CompiledModel>()
    private val buffers = mutableMapOf<Int, Buffers>()

    /** Seconds that the last call took, with writing its inputs and reading its outputs. */
    var latency = Double.NaN
        private set

    /**
     * Runs the network once.
     *
     * @param inputs an array for each input of the manifest
     * @param percentage is served by the next higher one of the export, above the highest by the
     *   highest
     * @return an array for each output of the manifest
     * @throws IllegalArgumentException if inputs are missing, unknown, or of another size or type
     */
    fun run(inputs: Map<String, Any>, percentage: Int): Map<String, Any> {
        require(inputs.keys == manifest.inputs.keys) {
            "Expected the inputs ${manifest.inputs.keys}. Received: ${inputs.keys}"
        }
        val entry = manifest.entryFor(percentage)
        val model = models.getOrPut(entry.file) { open(entry.file) }
        val buffers = buffers.getOrPut(entry.percentage) { createBuffers(model, entry.signature) }
        val begin = clock()
        for ((name, value) in inputs) {
            write(name, value, manifest.inputs.getValue(name), buffers.inputs.getValue(name))
        }
        model.run(buffers.inputs, buffers.outputs, entry.signature)
        val outputs =
            manifest.outputs.mapValues { (name, tensor) ->
                read(name, tensor, buffers.outputs.getValue(name))
            }
        latency = (clock() - begin) / 1e9
        return outputs
    }

    /**
     * Runs the network once at the percentage that a governor chose, and tells it how long it took.
     *
     * The first call at each percentage is not told: it allocates memory and reads the weights for
     * the first time, so it says nothing about the next ones.
     *
     * @param headroom a new reading of [Thermal], NaN if there is none
     */
    fun run(
        inputs: Map<String, Any>,
        governor: Governor,
        headroom: Double = Double.NaN,
    ): Map<String, Any> {
        val percentage = governor.percentage
        val isFirst = manifest.entryFor(percentage).percentage !in buffers
        val outputs = run(inputs, percentage)
        if (!isFirst) governor.record(latency, headroom = headroom)
        return outputs
    }

    /** Frees what was compiled. The environment that a caller passed in is the caller's to close. */
    override fun close() {
        buffers.values.forEach { (it.inputs.values + it.outputs.values).forEach(TensorBuffer::close) }
        models.values.forEach(CompiledModel::close)
        buffers.clear()
        models.clear()
    }

    private fun createBuffers(model: CompiledModel, signature: String) =
        Buffers(
            manifest.inputs.keys.associateWith { model.createInputBuffer(it, signature) },
            manifest.outputs.keys.associateWith { model.createOutputBuffer(it, signature) },
        )

    private fun write(name: String, value: Any, tensor: Manifest.Tensor, buffer: TensorBuffer) {
        fun check(type: String, dtype: String, size: Int) =
            require(tensor.dtype == dtype && size == tensor.size) {
                "Input $name holds ${tensor.size} numbers of type ${tensor.dtype}. " +
                    "Received: $type of $size"
            }
        when (value) {
            is FloatArray -> {
                check("FloatArray", "float32", value.size)
                buffer.writeFloat(value)
            }
            is IntArray -> {
                check("IntArray", "int32", value.size)
                buffer.writeInt(value)
            }
            is LongArray -> {
                check("LongArray", "int64", value.size)
                buffer.writeLong(value)
            }
            is ByteArray -> {
                check("ByteArray", "int8", value.size)
                buffer.writeInt8(value)
            }
            is BooleanArray -> {
                check("BooleanArray", "bool", value.size)
                buffer.writeBoolean(value)
            }
            else ->
                throw IllegalArgumentException(
                    "Input $name must be an array of numbers. Received: ${value::class.simpleName}"
                )
        }
    }

    private fun read(name: String, tensor: Manifest.Tensor, buffer: TensorBuffer): Any =
        when (tensor.dtype) {
            "float32" -> buffer.readFloat()
            "int32" -> buffer.readInt()
            "int64" -> buffer.readLong()
            "int8" -> buffer.readInt8()
            "bool" -> buffer.readBoolean()
            else ->
                throw IllegalArgumentException(
                    "LiteRT cannot read output $name. Received: type ${tensor.dtype}"
                )
        }

    companion object {
        private const val MANIFEST = "manifest.json"
        private val CPU_ONLY = setOf(Accelerator.CPU, Accelerator.NONE)

        /**
         * Opens an export in the assets of the app.
         *
         * @param folder the folder of the export below the assets, "" if they are the folder
         * @throws IllegalArgumentException if the options name another accelerator than the CPU and
         *   the export has the storage "shared": a GPU computes wrong numbers with it, without an
         *   error
         */
        fun fromAssets(
            assets: AssetManager,
            folder: String = "",
            options: CompiledModel.Options = CompiledModel.Options(Accelerator.CPU),
            environment: Environment? = null,
        ): ScalableModel {
            val prefix = if (folder.isEmpty()) "" else "$folder/"
            val json = assets.open(prefix + MANIFEST).bufferedReader().use { it.readText() }
            return ScalableModel(
                checked(Manifest(json), options),
                { CompiledModel.create(assets, prefix + it, options, environment) },
            )
        }

        /**
         * Opens an export in a folder, one that was downloaded for example.
         *
         * @throws IllegalArgumentException as [fromAssets]
         */
        fun fromFolder(
            folder: File,
            options: CompiledModel.Options = CompiledModel.Options(Accelerator.CPU),
            environment: Environment? = null,
        ) =
            ScalableModel(
                checked(Manifest(File(folder, MANIFEST).readText()), options),
                { CompiledModel.create(File(folder, it).path, options, environment) },
            )

        private fun checked(manifest: Manifest, options: CompiledModel.Options): Manifest {
            val others = options.accelerators - CPU_ONLY
            require(manifest.storage != "shared" || others.isEmpty()) {
                "This export stores each weight once for all percentages, which GPUs and NPUs " +
                    "refuse or read wrongly without an error. Use Accelerator.CPU alone, an export " +
                    "with mode=\"signatures\" and storage=\"plain\", or a standalone percentage " +
                    "(OnePercentage). Received: storage \"shared\" and $others"
            }
            return manifest
        }
    }
}
