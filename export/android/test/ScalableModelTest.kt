package kerastesla

import android.content.res.AssetManager
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.Environment
import java.io.File
import kotlin.io.path.createTempDirectory

private const val ONE_FILE =
    """{"format": 1, "mode": "signatures", "nested_layouts": [],
    "inputs": {"a": {"shape": [1, 2], "dtype": "float32"}, "b": {"shape": [1], "dtype": "int32"}},
    "outputs": {"y": {"shape": [1, 2], "dtype": "float32"}},
    "percentages": [
      {"percentage": 100, "file": "model.tflite", "signature": "p100", "multiply_adds": 9},
      {"percentage": 20, "file": "model.tflite", "signature": "p20", "multiply_adds": 1}]}"""

private val INPUTS = mapOf("a" to floatArrayOf(1f, 2f), "b" to intArrayOf(3))

/** A model on the stubs: `y` is `a` times the percentage of the signature plus `b`. */
private fun model(json: String = ONE_FILE, clock: () -> Long = { 0 }): ScalableModel {
    CompiledModel.all.clear()
    CompiledModel.compute = { signature, inputs ->
        val factor = signature.removePrefix("p").toInt()
        val b = (inputs.getValue("b") as IntArray)[0]
        mapOf("y" to (inputs.getValue("a") as FloatArray).map { it * factor + b }.toFloatArray())
    }
    return ScalableModel(Manifest(json), { CompiledModel.create(it) }, clock)
}

private fun ScalableModel.y(percentage: Int) =
    (run(INPUTS, percentage).getValue("y") as FloatArray).toList()

fun scalableModelTests(runner: Runner) {
    runner.test("the signature of the next higher percentage runs") {
        val model = model()
        assertEquals(listOf(103f, 203f), model.y(100))
        assertEquals(listOf(23f, 43f), model.y(20))
        assertEquals(listOf(23f, 43f), model.y(7))
        assertEquals(listOf(103f, 203f), model.y(21))
        assertEquals(listOf("p100", "p20", "p20", "p100"), CompiledModel.all.single().signatures)
        val buffers = CompiledModel.all.single().created.keys
        assertEquals(setOf("p100/a", "p100/b", "p100/y", "p20/a", "p20/b", "p20/y"), buffers)
    }
    runner.test("a file for each percentage is compiled when it is needed") {
        val json = ONE_FILE.replaceFirst("model.tflite", "p100.tflite")
        val model = model(json)
        assertEquals(0, CompiledModel.all.size)
        model.y(20)
        assertEquals(listOf("model.tflite"), CompiledModel.all.map { it.source })
        model.y(50)
        assertEquals(listOf("model.tflite", "p100.tflite"), CompiledModel.all.map { it.source })
    }
    runner.test("a call is timed") {
        var now = 5_000_000_000L
        val model = model(clock = { now.also { now += 2_500_000 } })
        assertEquals(true, model.latency.isNaN())
        model.y(100)
        assertEquals(0.0025, model.latency)
    }
    runner.test("a governor chooses the percentage and is told the time") {
        var now = 0L
        val model = model(clock = { now.also { now += 30_000_000 } })
        val governor = Governor(listOf(100, 20), latencyBudget = 0.010)
        model.run(INPUTS, governor)
        assertEquals(true, governor.average.isNaN(), "the first call is not told:")
        model.run(INPUTS, governor)
        assertEquals(20, governor.percentage)
        model.run(INPUTS, governor)
        assertEquals(true, governor.average.isNaN(), "nor the first one at 20 %:")
        model.run(INPUTS, governor)
        assertEquals(0.03, governor.average)
        assertEquals(listOf("p100", "p100", "p20", "p20"), CompiledModel.all.single().signatures)
    }
    runner.test("the headroom reaches the governor") {
        val model = model()
        val governor = Governor(listOf(100, 20), latencyBudget = 0.010)
        model.run(INPUTS, governor)
        model.run(INPUTS, governor, headroom = 0.95)
        assertEquals(20, governor.percentage)
    }
    runner.test("inputs that do not fit are refused") {
        val model = model()
        assertRefuses("Expected the inputs [a, b]") { model.run(INPUTS - "b", 100) }
        assertRefuses("Received: [a, b, c]") { model.run(INPUTS + ("c" to 1), 100) }
        assertRefuses("2 numbers of type float32. Received: FloatArray of 3") {
            model.run(INPUTS + ("a" to FloatArray(3)), 100)
        }
        assertRefuses("type float32. Received: IntArray of 2") {
            model.run(INPUTS + ("a" to IntArray(2)), 100)
        }
        assertRefuses("must be an array") { model.run(INPUTS + ("a" to listOf(1f, 2f)), 100) }
        assertEquals(listOf<String>(), CompiledModel.all.single().signatures)
    }
    runner.test("every element type is written and read") {
        val values =
            mapOf(
                "float32" to floatArrayOf(1f),
                "int32" to intArrayOf(2),
                "int64" to longArrayOf(3),
                "int8" to byteArrayOf(4),
                "bool" to booleanArrayOf(true),
            )
        val tensors = values.keys.joinToString { "\"$it\": {\"shape\": [1], \"dtype\": \"$it\"}" }
        val json =
            ONE_FILE.replace(Regex("\"inputs\":.*\n.*\"outputs\".*\n")) {
                "\"inputs\": {$tensors}, \"outputs\": {$tensors},\n"
            }
        val model = model(json)
        CompiledModel.compute = { _, inputs -> inputs.mapValues { it.value!! } }
        assertEquals(values as Map<String, Any>, model.run(values, 100))
    }
    runner.test("closing frees models and buffers") {
        val model = model()
        model.y(100)
        model.y(20)
        val compiled = CompiledModel.all.single()
        model.close()
        assertEquals(true, compiled.closed)
        assertEquals(true, compiled.created.values.all { it.closed })
        model.close()
    }
    runner.test("weights that are stored once for all percentages stay on the CPU") {
        val folder = createTempDirectory().toFile()
        val manifest = File(folder, "manifest.json")
        val openers =
            listOf<(CompiledModel.Options) -> ScalableModel>(
                { ScalableModel.fromAssets(AssetManager(folder), options = it) },
                { ScalableModel.fromFolder(folder, it) },
            )
        for (open in openers) {
            fun of(storage: String, vararg accelerators: Accelerator) {
                manifest.writeText(ONE_FILE.replace("1, \"mode\"", "1, \"storage\": $storage, \"mode\""))
                open(CompiledModel.Options(*accelerators))
            }
            val message = "Received: storage \"shared\" and "
            assertRefuses("$message[GPU]") { of("\"shared\"", Accelerator.GPU, Accelerator.CPU) }
            assertRefuses("$message[NPU]") { of("\"shared\"", Accelerator.NPU) }
            of("\"shared\"", Accelerator.CPU)
            of("\"plain\"", Accelerator.GPU, Accelerator.CPU)
            of("null", Accelerator.NPU) // a file for each percentage
        }
        folder.deleteRecursively()
    }
    runner.test("an export is opened from the assets or from a folder") {
        model()
        val folder = createTempDirectory().toFile()
        File(folder, "net").mkdir()
        File(folder, "net/manifest.json").writeText(ONE_FILE)
        File(folder, "net/model.tflite").writeText("")
        Environment.create().use { environment ->
            ScalableModel.fromAssets(AssetManager(folder), "net", environment = environment).y(20)
            ScalableModel.fromAssets(AssetManager(File(folder, "net"))).y(20)
            ScalableModel.fromFolder(File(folder, "net")).y(20)
            val (first, second, third) = CompiledModel.all
            assertEquals("assets:net/model.tflite", first.source)
            assertEquals(environment, first.environment)
            assertEquals("assets:model.tflite", second.source)
            assertEquals(null, second.environment)
            assertEquals("$folder/net/model.tflite", third.source)
        }
        folder.deleteRecursively()
    }
}
