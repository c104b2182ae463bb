package kerastesla

import org.json.JSONArray
import org.json.JSONObject

fun manifestTests(runner: Runner, json: String) {
    runner.test("a manifest is read") {
        val manifest = Manifest(json)
        assertEquals("percentage_input", manifest.mode)
        assertEquals(listOf(100, 50, 10), manifest.percentages)
        assertEquals(listOf("image"), manifest.inputs.keys.toList())
        assertEquals(listOf(1, 8, 8, 3), manifest.inputs.getValue("image").shape)
        assertEquals(192, manifest.inputs.getValue("image").size)
        assertEquals("float32", manifest.outputs.getValue("logits").dtype)
        assertEquals("seven", manifest.labels!![7])
        val entry = manifest.entries[1]
        assertEquals(50, entry.percentage)
        assertEquals("model.tflite", entry.file)
        assertEquals("p50", entry.signature)
        assertEquals(2500L, entry.multiplyAdds)
        assertEquals(listOf("own", "lambda"), entry.notCounted)
        assertEquals(emptyList<String>(), manifest.entries[2].notCounted)
        assertEquals(0.96, entry.accuracy)
        assertEquals(0.000125, entry.latency)
        val recipe = entry.standalone!!
        assertEquals(
            listOf(40960, 2048, 20480),
            listOf(recipe.offset, recipe.compressedBytes, recipe.bytes),
        )
        assertEquals("ab".repeat(32), recipe.sha256)
        assertEquals(listOf(listOf(2048, 1024, 512)), recipe.copies)
        assertEquals(listOf(listOf(2560, 4096, 0, 1)), recipe.nestedWeights)
        assertEquals(null, manifest.entries[2].standalone)
        val layout = manifest.nestedLayouts.single()
        assertEquals(listOf(listOf(1, 4), listOf(1, 8)), listOf(layout.rows, layout.columns))
        assertEquals(listOf(9, 4), listOf(layout.inner, layout.itemBytes))
    }
    runner.test("a percentage is served by the next higher one") {
        val manifest = Manifest(json)
        val served = listOf(1, 10, 11, 50, 51, 100, 120).map { manifest.entryFor(it).percentage }
        assertEquals(listOf(10, 10, 50, 50, 100, 100, 100), served)
    }
    runner.test("costs are the latencies, or the multiply-adds if one is unknown") {
        assertEquals(mapOf(100 to 0.00025, 50 to 0.000125, 10 to 3.0e-5), Manifest(json).costs)
        val unknown = JSONObject(json)
        unknown.getJSONArray("percentages").getJSONObject(2).put("latency", JSONObject.NULL)
        val manifest = Manifest(unknown.toString())
        assertEquals(null, manifest.entries[2].latency)
        assertEquals(mapOf(100 to 10000.0, 50 to 2500.0, 10 to 100.0), manifest.costs)
    }
    runner.test("an export may have no labels") {
        assertEquals(null, Manifest(JSONObject(json).apply { remove("labels") }.toString()).labels)
    }
    runner.test("a governor is made of it") {
        val manifest = Manifest(json)
        val governor = Governor(manifest.percentages, manifest.costs, latencyBudget = 0.010)
        assertEquals(50, governor.record(0.016))
    }
    for (text in listOf("", "[]", "{}", "{\"mode\": \"signatures\"}", json.dropLast(20))) {
        runner.test("no manifest: ${text.take(20)} of ${text.length}") {
            assertRefuses("not a manifest") { Manifest(text) }
        }
    }
    for (format in listOf<Any>(2, 0, "1", true, JSONObject.NULL)) {
        runner.test("a manifest of format $format is refused") {
            val other = JSONObject(json).put("format", format)
            assertRefuses("has format $format; this code reads format 1. Export the model again") {
                Manifest(other.toString())
            }
        }
    }
    runner.test("a manifest without percentages is refused") {
        val empty = JSONObject(json).put("percentages", JSONArray())
        assertRefuses("holds no percentage") { Manifest(empty.toString()) }
    }
}
