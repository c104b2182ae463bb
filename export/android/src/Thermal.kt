package kerastesla

import android.os.Build
import android.os.PowerManager

/**
 * The thermal headroom of the device as [Governor] takes it.
 *
 * @param power `context.getSystemService(PowerManager::class.java)`
 * @param forecastSeconds how far ahead, 0..60
 * @param clock nanoseconds
 */
class Thermal(
    private val power: PowerManager,
    private val forecastSeconds: Int = 10,
    private val clock: () -> Long = System::nanoTime,
) {
    private var last: Long? = null

    /**
     * A new reading, 1.0 where severe throttling begins; NaN if the last one is less than a second
     * old, the device has none, or Android is older than 11 (API 30).
     */
    fun headroom(): Double {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) return Double.NaN
        val now = clock()
        // Asked significantly more often than once a second, Android answers NaN.
        last?.let { if (now - it < 1_000_000_000L) return Double.NaN }
        last = now
        return power.getThermalHeadroom(forecastSeconds).toDouble()
    }
}
