package kerastesla

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/**
 * The content of `manifest.json`, which describes an export.
 *
 * @param json the text of the file
 * @throws IllegalArgumentException if it is not a manifest, or one of another format
 */
class Manifest(json: String) {
    /** An input or output: its shape with the batch, and its element type as in Keras. */
    class Tensor(val shape: List<Int>, val dtype: String) {
        /** Numbers in it. */
        val size: Int
            get() = shape.fold(1, Int::times)
    }

    /**
     * One percentage of the export.
     *
     * @property file name of the file that holds it
     * @property signature its signature in that file
     * @property multiplyAdds of one example, without those of [notCounted]
     * @property notCounted names of the layers whose multiply-adds nobody knows
     * @property latency seconds, measured on the exporting machine; null if it was not
     * @property standalone how it becomes a standalone file, see [OnePercentage]; null if it already is
     */
    class Entry(
        val percentage: Int,
        val file: String,
        val signature: String,
        val multiplyAdds: Long,
        val notCounted: List<String>,
        val accuracy: Double?,
        val latency: Double?,
        val standalone: Recipe?,
    )

    /**
     * How one percentage is put together from the bytes of its file; offsets and sizes in bytes.
     *
     * @property offset of its flatbuffer in the file, compressed by zlib
     * @property compressedBytes its size there
     * @property bytes size of the result
     * @property sha256 of the result, hex digits
     * @property copies runs of bytes: (target, source, bytes)
     * @property nestedWeights weights that are stored nested: (target, source, index in
     *   [Manifest.nestedLayouts], level)
     */
    class Recipe(
        val offset: Int,
        val compressedBytes: Int,
        val bytes: Int,
        val sha256: String,
        val copies: List<List<Int>>,
        val nestedWeights: List<List<Int>>,
    )

    /**
     * How the leading blocks of a weight are stored in one run of bytes.
     *
     * @property rows of each block, ascending
     * @property columns of each block, ascending
     * @property inner values for each row and column
     * @property itemBytes size of a value
     * @property columnRuns for each block which columns of the largest one it has, as ascending
     *   runs (first, end); null: the first ones
     */
    class NestedLayout(
        val rows: List<Int>,
        val columns: List<Int>,
        val inner: Int,
        val itemBytes: Int,
        val columnRuns: List<List<List<Int>>>? = null,
    )

    val mode: String

    /** "shared" or "plain"; null if each percentage has a file of its own. */
    val storage: String?
    val inputs: Map<String, Tensor>
    val outputs: Map<String, Tensor>

    /** Names of the numbers along the last axis of the outputs; null if the export had none. */
    val labels: List<String>?

    val nestedLayouts: List<NestedLayout>

    /** From the highest to the lowest percentage. */
    val entries: List<Entry>

    init {
        try {
            val root = JSONObject(json)
            val format = root.get("format")
            require(format == FORMAT) {
                "The manifest has format $format; this code reads format $FORMAT. Export the model " +
                    "again with the version of keras_tesla that this code comes from."
            }
            mode = root.getString("mode")
            storage = root.orNull("storage", root::getString)
            inputs = tensors(root.getJSONObject("inputs"))
            outputs = tensors(root.getJSONObject("outputs"))
            labels = root.orNull("labels", root::getJSONArray)?.strings()
            nestedLayouts = root.getJSONArray("nested_layouts").objects().map(::nestedLayout)
            entries =
                root
                    .getJSONArray("percentages")
                    .objects()
                    .map(::entry)
                    .sortedByDescending { it.percentage }
            require(entries.isNotEmpty()) { "The manifest holds no percentage." }
        } catch (error: JSONException) {
            throw IllegalArgumentException("This is not a manifest of an export: $error", error)
        }
    }

    val percentages: List<Int>
        get() = entries.map { it.percentage }

    /**
     * What each percentage takes relative to the others, for [Governor]: the latencies measured
     * at the export, or the multiply-adds if there are none.
     */
    val costs: Map<Int, Double>
        get() =
            if (entries.all { it.latency != null && it.latency > 0 }) {
                entries.associate { it.percentage to it.latency!! }
            } else {
                entries.associate { it.percentage to it.multiplyAdds.toDouble() }
            }

    /** The entry that serves a percentage: the next higher one, above the highest the highest. */
    fun entryFor(percentage: Int): Entry =
        entries.lastOrNull { it.percentage >= percentage } ?: entries.first()

    private fun tensors(json: JSONObject): Map<String, Tensor> =
        json.keys().asSequence().associateWith { name ->
            val tensor = json.getJSONObject(name)
            Tensor(tensor.getJSONArray("shape").ints(), tensor.getString("dtype"))
        }

    private fun entry(json: JSONObject) =
        Entry(
            json.getInt("percentage"),
            json.getString("file"),
            json.getString("signature"),
            json.getLong("multiply_adds"),
            json.orNull("not_counted", json::getJSONArray)?.strings() ?: emptyList(),
            json.orNull("accuracy", json::getDouble),
            json.orNull("latency", json::getDouble),
            json.orNull("standalone", json::getJSONObject)?.let(::recipe),
        )

    private fun recipe(json: JSONObject) =
        Recipe(
            json.getInt("offset"),
            json.getInt("compressed_bytes"),
            json.getInt("bytes"),
            json.getString("sha256"),
            json.getJSONArray("copies").lists(3),
            json.getJSONArray("nested_weights").lists(4),
        )

    private fun nestedLayout(json: JSONObject) =
        NestedLayout(
            json.getJSONArray("rows").ints(),
            json.getJSONArray("columns").ints(),
            json.getInt("inner"),
            json.getInt("item_bytes"),
            json.optJSONArray("column_runs")?.let { blocks ->
                List(blocks.length()) { blocks.getJSONArray(it).lists(2) }
            },
        )

    private fun JSONArray.objects() = List(length()) { getJSONObject(it) }

    private fun JSONArray.strings() = List(length()) { getString(it) }

    private fun JSONArray.ints() = List(length()) { getInt(it) }

    private fun JSONArray.lists(size: Int) =
        List(length()) { getJSONArray(it).ints() }
            .onEach { if (it.size != size) throw JSONException("Expected $size numbers: $it") }

    private fun <T> JSONObject.orNull(name: String, get: (String) -> T): T? =
        if (isNull(name)) null else get(name)

    private companion object {
        const val FORMAT = 1
    }
}
