package kerastesla

import android.content.res.AssetManager
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.MappedByteBuffer
import java.nio.channels.FileChannel
import java.security.MessageDigest
import java.util.zip.InflaterInputStream
import kotlin.math.max

/**
 * Extracts one percentage of a file as a standalone model: it needs the memory of that percentage
 * only, and every delegate accepts its weights.
 *
 * For each percentage the file holds a compressed flatbuffer without weights, and the manifest a
 * recipe: which bytes of the file to copy after it, and where to. `keras_tesla.tflite.storages` in
 * Python writes and reads the same.
 */
object OnePercentage {
    /**
     * Maps a file of the assets into memory; it must not be compressed.
     *
     * @param path below the assets
     */
    fun map(assets: AssetManager, path: String): MappedByteBuffer =
        assets.openFd(path).use {
            val channel = FileInputStream(it.fileDescriptor).channel
            channel.map(FileChannel.MapMode.READ_ONLY, it.startOffset, it.length)
        }

    /** Maps a file into memory. */
    fun map(file: File): MappedByteBuffer =
        FileInputStream(file).use {
            it.channel.map(FileChannel.MapMode.READ_ONLY, 0, it.channel.size())
        }

    /**
     * Returns one percentage in memory, for `Interpreter(ByteBuffer)`.
     *
     * @param content all bytes of the file
     * @param percentage is served by the next higher one of the file, above the highest by the highest
     * @throws IllegalArgumentException if the file holds only this percentage, or the result is not what
     *   was exported
     */
    fun extract(content: ByteBuffer, manifest: Manifest, percentage: Int): ByteBuffer {
        val entry = manifest.entryFor(percentage)
        val recipe = recipe(entry)
        val made = ByteBuffer.allocateDirect(recipe.bytes).order(ByteOrder.nativeOrder())
        try {
            val flatbuffer = inflate(content, recipe.offset, recipe.compressedBytes)
            copy(flatbuffer, 0, made, 0, flatbuffer.capacity())
            for ((to, from, size) in recipe.copies) copy(content, from, made, to, size)
            for ((to, from, layout, level) in recipe.nestedWeights) {
                unfold(content, from, made, to, manifest.nestedLayouts[layout], level)
            }
        } catch (error: IndexOutOfBoundsException) {
            throw IllegalArgumentException(damaged(entry), error)
        } catch (error: IOException) { // from inflating
            throw IllegalArgumentException(damaged(entry), error)
        }
        val digest = MessageDigest.getInstance("SHA-256").apply { update(made.duplicate()) }.digest()
        val digits = digest.joinToString("") { "%02x".format(it) }
        require(digits == recipe.sha256) { damaged(entry) }
        return made
    }

    /**
     * Writes one percentage as a file, for `CompiledModel.create(path)` or `Interpreter(File)`, unless
     * the folder holds it already.
     *
     * @param folder for example `context.cacheDir`; the name of the file is its SHA-256, so an
     *   old file is never used for another export
     * @param content all bytes of the file of all percentages
     */
    fun extractTo(folder: File, content: ByteBuffer, manifest: Manifest, percentage: Int): File {
        val file = File(folder, "${recipe(manifest.entryFor(percentage)).sha256}.tflite")
        if (!file.exists()) {
            val made = extract(content, manifest, percentage)
            // Whole or not at all.
            val unfinished = File.createTempFile("unfinished", null, folder)
            try {
                unfinished.outputStream().channel.use { while (made.hasRemaining()) it.write(made) }
                check(unfinished.renameTo(file)) { "$unfinished cannot be renamed to $file." }
            } finally {
                unfinished.delete()
            }
        }
        return file
    }

    private fun recipe(entry: Manifest.Entry): Manifest.Recipe =
        requireNotNull(entry.standalone) {
            "${entry.percentage} % has a file of its own: open ${entry.file}."
        }

    private fun damaged(entry: Manifest.Entry) =
        "${entry.percentage} % of ${entry.file} is not what was exported. Copy the file and its " +
            "manifest again."

    private fun inflate(source: ByteBuffer, from: Int, size: Int): ByteBuffer {
        val compressed = ByteBuffer.allocate(max(size, 0))
        copy(source, from, compressed, 0, size)
        return ByteBuffer.wrap(InflaterInputStream(compressed.array().inputStream()).readBytes())
    }

    private fun copy(source: ByteBuffer, from: Int, target: ByteBuffer, to: Int, size: Int) {
        if (from < 0 || to < 0 || size < 0 || from > source.capacity() - size) {
            throw IndexOutOfBoundsException("$size bytes from $from")
        }
        if (to > target.capacity() - size) throw IndexOutOfBoundsException("$size bytes to $to")
        val run = source.duplicate()
        run.limit(from + size).position(from)
        target.duplicate().also { it.position(to) }.put(run)
    }

    /**
     * Copies a leading block of a nested weight, which is stored run by run as rows, columns, inner,
     * and is needed as rows, inner, columns.
     */
    private fun unfold(
        source: ByteBuffer,
        from: Int,
        target: ByteBuffer,
        to: Int,
        layout: Manifest.NestedLayout,
        level: Int,
    ) {
        val width = layout.columns[level]
        val places = places(layout, level)
        var at = from
        fun run(row: Int, begin: Int, end: Int) {
            for (stored in begin until end) {
                val column = places[stored]
                for (inner in 0 until layout.inner) {
                    val place = to + ((row * layout.inner + inner) * width + column) * layout.itemBytes
                    for (byte in 0 until layout.itemBytes) target.put(place + byte, source.get(at++))
                }
            }
        }
        var rows = 0
        var columns = 0
        for (i in 0..level) {
            for (row in rows until layout.rows[i]) run(row, 0, layout.columns[i])
            for (row in 0 until rows) run(row, columns, layout.columns[i])
            rows = layout.rows[i]
            columns = layout.columns[i]
        }
    }

    /** Returns for each column of a block, in stored order, where in the block it belongs. */
    private fun places(layout: Manifest.NestedLayout, level: Int): List<Int> {
        val runs = layout.columnRuns ?: return List(layout.columns[level]) { it }
        fun columns(block: Int): List<Int> {
            val count = runs[block].sumOf { (first, end) -> end.toLong() - first }
            val valid = runs[block].all { (first, end) -> first in 0 until end }
            if (!valid || count != layout.columns[block].toLong()) throw IndexOutOfBoundsException("$count columns")
            return runs[block].flatMap { (first, end) -> first until end }
        }
        val stored = LinkedHashSet<Int>()
        for (block in 0..level) stored.addAll(columns(block))
        val place = columns(level).withIndex().associate { (index, column) -> column to index }
        return stored.map { place[it] ?: throw IndexOutOfBoundsException("column $it") }
    }
}
