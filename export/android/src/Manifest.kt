package kerastesla

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/**
 * What `manifest.json` says of an export.
 *
 * @param json the text of the file
 * @throws IllegalArgumentException if it is no manifest that this code knows
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
     * @property latency seconds, measured on the exporting machine; null if it was not
     * @property alone how it is opened alone, see [OnePercentage]; null if its file is its own
     */
    class Entry(
        val percentage: Int,
        val file: String,
        val signature: String,
        val multiplyAdds: Long,
        val accuracy: Double?,
        val latency: Double?,
        val alone: Alone?,
    )

    /**
     * How one percentage is put together from the bytes of its file; offsets and sizes in bytes.
     *
     * @property offset where its flatbuffer, in zlib's form, begins in the file
     * @property size of it in the file
     * @property length of what results
     * @property sha256 of what results, hex digits
     * @property copies runs of bytes: (to, from, size)
     * @property corners weights that are stored nested: (to, from, index in [Manifest.shells], level)
     */
    class Alone(
        val offset: Int,
        val size: Int,
        val length: Int,
        val sha256: String,
        val copies: List<List<Int>>,
        val corners: List<List<Int>>,
    )

    /**
     * The corners of a nested weight, from the smallest to the largest.
     *
     * @property inner values for each row and column
     * @property item bytes of a value
     */
    class Shells(val rows: List<Int>, val columns: List<Int>, val inner: Int, val item: Int)

    val mode: String
    val inputs: Map<String, Tensor>
    val outputs: Map<String, Tensor>

    val shells: List<Shells>

    /** From the highest to the lowest percentage. */
    val entries: List<Entry>

    init {
        try {
            val root = JSONObject(json)
            mode = root.getString("mode")
            inputs = tensors(root.getJSONObject("inputs"))
            outputs = tensors(root.getJSONObject("outputs"))
            shells = root.getJSONArray("shells").objects().map(::shells)
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
     * What each percentage takes in relation to the others, for [Governor]: the latencies measured
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
            json.orNull("accuracy", json::getDouble),
            json.orNull("latency", json::getDouble),
            json.orNull("alone", json::getJSONObject)?.let(::alone),
        )

    private fun alone(json: JSONObject) =
        Alone(
            json.getInt("offset"),
            json.getInt("size"),
            json.getInt("length"),
            json.getString("sha256"),
            json.getJSONArray("copies").lists(3),
            json.getJSONArray("corners").lists(4),
        )

    private fun shells(json: JSONObject) =
        Shells(
            json.getJSONArray("rows").ints(),
            json.getJSONArray("columns").ints(),
            json.getInt("inner"),
            json.getInt("item"),
        )

    private fun JSONArray.objects() = List(length()) { getJSONObject(it) }

    private fun JSONArray.ints() = List(length()) { getInt(it) }

    private fun JSONArray.lists(size: Int) =
        List(length()) { getJSONArray(it).ints() }
            .onEach { if (it.size != size) throw JSONException("Expected $size numbers: $it") }

    private fun <T> JSONObject.orNull(name: String, get: (String) -> T): T? =
        if (isNull(name)) null else get(name)
}
