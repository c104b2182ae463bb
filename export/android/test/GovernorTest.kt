package kerastesla

import org.json.JSONArray
import org.json.JSONObject

fun governorTests(runner: Runner, json: String) {
    val traces = JSONObject(json).getJSONArray("traces")
    for (i in 0 until traces.length()) {
        val trace = traces.getJSONObject(i)
        runner.test("trace ${trace.getString("name")}") { replay(trace) }
    }
    runner.test("there are traces") { assertEquals(true, traces.length() >= 10) }

    fun make() = Governor(listOf(100, 50, 10), latencyBudget = 0.010)

    for (bad in listOf(-1e-9, Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY)) {
        runner.test("a measurement of $bad is refused and not recorded") {
            val governor = make()
            governor.record(0.005)
            assertRefuses("latency must be") { governor.record(bad) }
            assertRefuses("energy must be") { governor.record(0.05, energy = bad) }
            assertRefuses("elapsed must be") { governor.record(0.05, elapsed = bad) }
            if (!bad.isNaN()) {
                assertRefuses("headroom must be") { governor.record(0.05, headroom = bad) }
            }
            assertRefuses("governor's percentages") { governor.record(0.05, percentage = 30) }
            assertEquals(0.005, governor.average)
            assertEquals(100, governor.percentage)
        }
        runner.test("a setting of $bad is refused") {
            assertRefuses("latencyBudget must be") { Governor(listOf(50), latencyBudget = bad) }
            assertRefuses("energyBudget must be") { Governor(listOf(50), energyBudget = bad) }
            assertRefuses("hold must be") { Governor(listOf(50), null, 1.0, hold = bad) }
            assertRefuses("margin must be") { Governor(listOf(50), null, 1.0, margin = bad) }
            assertRefuses("overshoot must be") { Governor(listOf(50), null, 1.0, overshoot = bad) }
            assertRefuses("hot must be") { Governor(listOf(50), null, 1.0, hot = bad) }
            assertRefuses("costs[50] must be") { Governor(listOf(50), mapOf(50 to bad), 1.0) }
        }
    }
    runner.test("percentages and settings that do not fit are refused") {
        assertRefuses("Received neither") { Governor(listOf(50)) }
        assertRefuses("at least one") { Governor(listOf(), latencyBudget = 1.0) }
        assertRefuses("from 1 to 100") { Governor(listOf(101), latencyBudget = 1.0) }
        assertRefuses("distinct") { Governor(listOf(5, 5), latencyBudget = 1.0) }
        assertRefuses("above 0") { Governor(listOf(50), latencyBudget = 0.0) }
        assertRefuses("window must be") { Governor(listOf(50), null, 1.0, window = 0) }
        assertRefuses("margin < hot") { Governor(listOf(50), null, 1.0, margin = 0.9) }
        assertRefuses("governor's percentages") { Governor(listOf(50), null, 1.0, start = 60) }
        assertRefuses("each of [50, 10]") { Governor(listOf(10, 50), mapOf(10 to 1.0), 1.0) }
    }
    runner.test("the average is NaN before the first call") {
        val governor = make()
        assertEquals(true, governor.average.isNaN())
        assertEquals(50, governor.record(0.016))
        assertEquals(true, governor.average.isNaN())
    }
}

/** Does what Python did, and compares every choice and every average, bit for bit. */
private fun replay(trace: JSONObject) {
    val governor = governor(trace)
    assertEquals(trace.getInt("first"), governor.percentage, "the first percentage")
    val records = trace.getJSONArray("records")
    assertEquals(true, records.length() > 0)
    for (i in 0 until records.length()) {
        val record = records.getJSONArray(i)
        val percentage =
            governor.record(
                latency = record.getDouble(0),
                energy = record.doubleOrNull(1),
                headroom = record.doubleOrNull(2) ?: Double.NaN,
                percentage = if (record.isNull(3)) governor.percentage else record.getInt(3),
                elapsed = record.getDouble(4),
            )
        assertEquals(record.getInt(5), percentage, "record $i")
        val average = record.doubleOrNull(6) ?: Double.NaN
        assertEquals(average.toBits(), governor.average.toBits(), "average after record $i")
    }
}

private fun governor(trace: JSONObject): Governor {
    val options = trace.getJSONObject("options")
    val percentages = options.getJSONArray("percentages")
    val costs = options.getJSONObject("costs")
    val costOf = costs.keys().asSequence().associate { it.toInt() to costs.getDouble(it) }
    val list = (0 until percentages.length()).map(percentages::getInt)
    if (!options.has("hold")) {
        return Governor(list, costOf, latencyBudget = options.getDouble("latency_budget"))
    }
    return Governor(
        list,
        costOf,
        latencyBudget = options.doubleOrNull("latency_budget"),
        energyBudget = options.doubleOrNull("energy_budget"),
        hold = options.getDouble("hold"),
        window = options.getInt("window"),
        margin = options.getDouble("margin"),
        overshoot = options.getDouble("overshoot"),
        hot = options.getDouble("hot"),
        start = if (options.isNull("start")) null else options.getInt("start"),
    )
}

private fun JSONArray.doubleOrNull(index: Int) = if (isNull(index)) null else getDouble(index)

private fun JSONObject.doubleOrNull(name: String) = if (isNull(name)) null else getDouble(name)
