// Stubs, for compiling and testing only.
package com.google.ai.edge.litert

import android.content.res.AssetManager

enum class Accelerator {
    NONE,
    CPU,
    GPU,
    NPU,
}

class Environment private constructor() : AutoCloseable {
    override fun close() = Unit

    companion object {
        fun create(): Environment = Environment()
    }
}

class TensorBuffer internal constructor() : AutoCloseable {
    var content: Any? = null
    var closed = false
        private set

    fun writeInt(data: IntArray) = write(data)

    fun writeFloat(data: FloatArray) = write(data)

    fun writeInt8(data: ByteArray) = write(data)

    fun writeBoolean(data: BooleanArray) = write(data)

    fun writeLong(data: LongArray) = write(data)

    fun readInt() = content as IntArray

    fun readFloat() = content as FloatArray

    fun readInt8() = content as ByteArray

    fun readBoolean() = content as BooleanArray

    fun readLong() = content as LongArray

    override fun close() {
        check(!closed)
        closed = true
    }

    private fun write(data: Any) {
        check(!closed)
        content = data
    }
}

class CompiledModel private constructor(val source: String, val environment: Environment?) :
    AutoCloseable {
    class Options(val accelerators: Set<Accelerator>) {
        constructor(vararg accelerators: Accelerator) : this(setOf(*accelerators))
    }

    /** ["signature/name"] of the buffers. */
    val created = mutableMapOf<String, TensorBuffer>()
    val signatures = mutableListOf<String>()
    var closed = false
        private set

    fun createInputBuffer(inputName: String, signature: String = ""): TensorBuffer =
        TensorBuffer().also { created["$signature/$inputName"] = it }

    fun createOutputBuffer(outputName: String, signature: String = ""): TensorBuffer =
        TensorBuffer().also { created["$signature/$outputName"] = it }

    fun run(
        inputs: Map<String, TensorBuffer>,
        outputs: Map<String, TensorBuffer>,
        signature: String = "",
    ) {
        check(!closed)
        signatures += signature
        val results = compute(signature, inputs.mapValues { it.value.content })
        for ((name, buffer) in outputs) buffer.content = results.getValue(name)
    }

    override fun close() {
        check(!closed)
        closed = true
    }

    companion object {
        val all = mutableListOf<CompiledModel>()
        var compute: (signature: String, inputs: Map<String, Any?>) -> Map<String, Any> = { _, _ ->
            mapOf()
        }

        fun create(
            assetManager: AssetManager,
            assetName: String,
            options: Options = Options(Accelerator.CPU),
            optionalEnv: Environment? = null,
        ): CompiledModel {
            assetManager.open(assetName).close()
            return CompiledModel("assets:$assetName", optionalEnv).also(all::add)
        }

        fun create(
            filePath: String,
            options: Options = Options(Accelerator.CPU),
            optionalEnv: Environment? = null,
        ): CompiledModel = CompiledModel(filePath, optionalEnv).also(all::add)
    }
}
