package kerastesla

import android.os.Build
import android.os.PowerManager

fun thermalTests(runner: Runner) {
    runner.test("Android is asked at most once a second") {
        val power = PowerManager()
        power.headroom = 0.75f
        var now = -7_000_000_000L // nanoTime counts from anywhere
        val thermal = Thermal(power, forecastSeconds = 20, clock = { now })
        assertEquals(0.75, thermal.headroom())
        assertEquals(20, power.lastForecastSeconds)
        now += 999_999_999
        assertEquals(true, thermal.headroom().isNaN())
        assertEquals(1, power.asked)
        now += 1
        power.headroom = 0.8f
        assertEquals(0.8f.toDouble(), thermal.headroom())
        assertEquals(2, power.asked)
    }
    runner.test("a device without headroom says NaN, which the governor takes for no reading") {
        val reading = Thermal(PowerManager()).headroom()
        assertEquals(true, reading.isNaN())
        val governor = Governor(listOf(100, 50), latencyBudget = 1.0)
        assertEquals(100, governor.record(0.5, headroom = reading))
    }
    runner.test("Android before 11 is not asked") {
        val power = PowerManager()
        power.headroom = 0.99f
        Build.VERSION.SDK_INT = 29
        try {
            assertEquals(true, Thermal(power).headroom().isNaN())
            assertEquals(0, power.asked)
        } finally {
            Build.VERSION.SDK_INT = Build.VERSION_CODES.R
        }
    }
}
