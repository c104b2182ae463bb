package kerastesla

import java.io.File
import kotlin.system.exitProcess

/** Counts tests and says which fail; the toolchain here has no JUnit. */
class Runner {
    private var passed = 0
    private var failed = 0

    fun test(name: String, body: () -> Unit) {
        try {
            body()
            passed += 1
        } catch (error: Throwable) {
            failed += 1
            println("FAILED $name: $error")
        }
    }

    fun finish(): Nothing {
        println("$passed passed, $failed failed")
        exitProcess(if (failed == 0 && passed > 0) 0 else 1)
    }
}

fun assertEquals(expected: Any?, actual: Any?, what: String = "") {
    if (expected != actual) throw AssertionError("$what expected $expected, was $actual")
}

fun assertRefuses(message: String, body: () -> Unit) {
    try {
        body()
    } catch (error: IllegalArgumentException) {
        val received = error.message.orEmpty()
        if (message !in received) throw AssertionError("expected a message with '$message': $received")
        return
    }
    throw AssertionError("expected IllegalArgumentException with '$message', nothing was thrown")
}

/** Arguments: the recorded traces, a manifest, and, if there is one, the folder of an export. */
fun main(arguments: Array<String>) {
    val runner = Runner()
    val (traces, manifest) = arguments.take(2).map { File(it).readText() }
    governorTests(runner, traces)
    manifestTests(runner, manifest)
    scalableModelTests(runner)
    onePercentageTests(runner, arguments.getOrNull(2)?.let(::File))
    thermalTests(runner)
    runner.finish()
}
