package kerastesla

import android.content.res.AssetManager
import java.io.ByteArrayOutputStream
import java.io.File
import java.nio.ByteBuffer
import java.security.MessageDigest
import java.util.zip.DeflaterOutputStream
import kotlin.io.path.createTempDirectory
import org.tensorflow.lite.Interpreter

private val FLATBUFFER = byteArrayOf(5, 6, 7)

/** What zlib makes of it, which is longer. */
private val COMPRESSED =
    ByteArrayOutputStream().also { out -> DeflaterOutputStream(out).use { it.write(FLATBUFFER) } }
        .toByteArray()

/** 200 bytes, each with its offset as its value, and the flatbuffer after them. */
private val CONTENT = ByteArray(200) { it.toByte() } + COMPRESSED

/** A flatbuffer of 3 bytes, a copy, and a leading block of 2 x 2 values of two bytes, inner 2. */
private val EXPECTED =
    ByteArray(32).also {
        FLATBUFFER.copyInto(it)
        CONTENT.copyInto(it, 4, 100, 105)
        // Stored: row 0 column 0, then row 1 columns 0 and 1, then row 0 column 1; 4 bytes each.
        val stored = mapOf((0 to 0) to 20, (1 to 0) to 24, (1 to 1) to 28, (0 to 1) to 32)
        for ((place, from) in stored) {
            for (inner in 0..1) {
                val to = 12 + ((place.first * 2 + inner) * 2 + place.second) * 2
                CONTENT.copyInto(it, to, from + 2 * inner, from + 2 * inner + 2)
            }
        }
    }

private fun hex(bytes: ByteArray) =
    MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }

private fun manifest(
    copies: String = "[[4, 100, 5]]",
    nestedWeights: String = "[[12, 20, 0, 1]]",
    compressedBytes: Int = COMPRESSED.size,
    bytes: Int = 32,
    sha256: String = hex(EXPECTED),
    columnRuns: String = "",
) =
    Manifest(
        """{"format": 1, "mode": "signatures", "inputs": {}, "outputs": {},
        "nested_layouts": [{"rows": [1, 2, 3], "columns": [1, 2, 3], "inner": 2, "item_bytes": 2
                            $columnRuns}],
        "percentages": [
          {"percentage": 100, "file": "p100.tflite", "signature": "s", "multiply_adds": 2,
           "standalone": null},
          {"percentage": 30, "file": "model.tflite", "signature": "p30", "multiply_adds": 1,
           "standalone": {"offset": 200, "compressed_bytes": $compressedBytes, "bytes": $bytes,
                          "sha256": "$sha256", "copies": $copies,
                          "nested_weights": $nestedWeights}}]}"""
    )

private fun bytes(buffer: ByteBuffer) = List(buffer.capacity()) { buffer.get(it) }

fun onePercentageTests(runner: Runner, export: File?) {
    val folder = createTempDirectory().toFile()
    val file = File(folder, "model.tflite").also { it.writeBytes(CONTENT) }

    runner.test("a percentage is put together as the manifest says") {
        val made = OnePercentage.extract(ByteBuffer.wrap(CONTENT), manifest(), 30)
        assertEquals(EXPECTED.toList(), bytes(made))
        assertEquals(32, Interpreter(made).bytes)
        assertEquals(EXPECTED.toList(), bytes(OnePercentage.extract(made(file), manifest(), 7)))
    }
    runner.test("it is written once, under the name of its digest") {
        val written = OnePercentage.extractTo(folder, made(file), manifest(), 30)
        assertEquals(EXPECTED.toList(), written.readBytes().toList())
        assertEquals("${hex(EXPECTED)}.tflite", written.name)
        assertEquals(setOf(file.name, written.name), folder.list()!!.toSet())
        assertEquals(32, Interpreter(written).bytes)
        written.writeText("it is not written again")
        assertEquals(written, OnePercentage.extractTo(folder, made(file), manifest(), 30))
        assertEquals("it is not written again", written.readText())
    }
    runner.test("what is damaged leaves no file") {
        val before = folder.list()!!.toSet()
        val other = manifest(sha256 = hex(CONTENT))
        assertRefuses("not what was exported") {
            OnePercentage.extractTo(folder, made(file), other, 30)
        }
        assertEquals(before, folder.list()!!.toSet())
    }
    runner.test("a file of the assets is mapped from its start to its end") {
        val assets = AssetManager(folder)
        assets.bytesBefore = 4100 // no multiple of a page
        assertEquals(CONTENT.toList(), bytes(OnePercentage.map(assets, "model.tflite")))
    }
    runner.test("a percentage with a file of its own is refused") {
        assertRefuses("open p100.tflite") { OnePercentage.extract(made(file), manifest(), 100) }
    }
    val changed = CONTENT.copyOf().also { it[102] = 0 }
    val damaged =
        mapOf(
            "another byte" to { OnePercentage.extract(ByteBuffer.wrap(changed), manifest(), 1) },
            "a short file" to
                { OnePercentage.extract(ByteBuffer.wrap(CONTENT.copyOf(199)), manifest(), 1) },
            "a short flatbuffer" to
                { OnePercentage.extract(made(file), manifest(compressedBytes = COMPRESSED.size - 6), 1) },
            "a flatbuffer of no size" to
                { OnePercentage.extract(made(file), manifest(compressedBytes = -1), 1) },
            "a result too short for it" to
                { OnePercentage.extract(made(file), manifest(bytes = 2), 1) },
            "another digest" to
                { OnePercentage.extract(made(file), manifest(sha256 = hex(CONTENT)), 1) },
        ) +
            listOf("[[4, 900, 5]]", "[[30, 9, 5]]", "[[-1, 9, 5]]", "[[1, 9, -5]]").map {
                "copies $it" to { OnePercentage.extract(made(file), manifest(copies = it), 1) }
            } +
            listOf("[[12, 900, 0, 1]]", "[[31, 20, 0, 1]]", "[[12, 20, 1, 1]]").map {
                "nested weights $it" to
                    { OnePercentage.extract(made(file), manifest(nestedWeights = it), 1) }
            }
    for ((what, extract) in damaged) {
        runner.test("$what is refused") {
            assertRefuses("30 % of model.tflite is not what was exported") { extract() }
        }
    }
    runner.test("columns of several parts are put in their places") {
        // The block has columns 0 and 2 of the weight, of which 2 is stored first.
        val runs = """, "column_runs": [[[2, 3]], [[0, 1], [2, 3]], [[0, 3]]]"""
        val swapped = EXPECTED.copyOf()
        for (pair in 0..3) { // of the columns of a row and inner place
            val at = 12 + 4 * pair
            EXPECTED.copyInto(swapped, at, at + 2, at + 4)
            EXPECTED.copyInto(swapped, at + 2, at, at + 2)
        }
        val made = manifest(sha256 = hex(swapped), columnRuns = runs)
        assertEquals(swapped.toList(), bytes(OnePercentage.extract(made(file), made, 30)))
    }
    for (runs in listOf("[[[0, 1]], [[0, 9]]]", "[[[0, 1]], [[1, 3]]]", "[[[0, 1]]]")) {
        runner.test("columns that are not nested are refused: $runs") {
            val made = manifest(columnRuns = """, "column_runs": $runs""")
            assertRefuses("30 % of model.tflite is not what was exported") {
                OnePercentage.extract(made(file), made, 30)
            }
        }
    }
    runner.test("an invalid recipe is refused") {
        assertRefuses("not a manifest") { manifest(copies = "[[1, 2]]") }
    }
    if (export != null) {
        val manifest = Manifest(File(export, "manifest.json").readText())
        for (entry in manifest.entries) {
            runner.test("the export holds ${entry.percentage} %") {
                // Compares the SHA-256 of what results with that of Python.
                val made =
                    OnePercentage.extract(made(File(export, entry.file)), manifest, entry.percentage)
                assertEquals("TFL3", String(ByteArray(4) { made.get(4 + it) }))
            }
        }
    }
    folder.deleteRecursively()
}

private fun made(file: File) = OnePercentage.map(file)
