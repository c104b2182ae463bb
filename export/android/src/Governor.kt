package kerastesla

import kotlin.math.max
import kotlin.math.min

/**
 * Chooses, call by call, the highest percentage that stays within the budgets: it steps down at once
 * and up slowly.
 *
 * The same policy as `keras_tesla.tflite.Governor` in Python, where its rules and what they guarantee
 * are written down. Both do the same double arithmetic in the same order; `traces.json` holds them
 * together. Every number is a primitive Double on purpose: comparing boxed ones treats NaN and -0.0
 * in another way.
 *
 * Not thread-safe.
 *
 * @param percentages those the file holds, distinct, 1..100
 * @param costs what each takes relative to the others: latencies measured anywhere, or
 *   multiply-adds; null: the percentage itself
 * @param latencyBudget seconds a call may take; at least one budget is needed
 * @param energyBudget joules a call may take
 * @param hold how long nothing may be wrong before a step up, in calls or in the unit of `elapsed`
 * @param window calls in the moving average
 * @param margin share of a budget that must be predicted to stay unused before a percentage is
 *   chosen, and how far below [hot] the headroom must fall before a step up
 * @param overshoot one measurement above this multiple of its budget causes a step down
 * @param hot thermal headroom (1: severe throttling) of a step down
 * @param start the percentage to begin with; null: the highest
 * @throws IllegalArgumentException if there is no budget, or an argument is not as described above
 */
class Governor(
    percentages: Collection<Int>,
    costs: Map<Int, Double>? = null,
    latencyBudget: Double? = null,
    energyBudget: Double? = null,
    hold: Double = 30.0,
    window: Int = 5,
    margin: Double = 0.1,
    overshoot: Double = 1.5,
    hot: Double = 0.9,
    start: Int? = null,
) {
    private val rising = checkedPercentages(percentages)
    private val hold = positive("hold", hold)
    private val hot = positive("hot", hot)
    private val cool = hot - atLeast("margin", margin, 0.0)
    private val latency: Gauge
    private val gauges: List<Gauge>
    private val expected = IntArray(rising.size)
    private val doubted = IntArray(rising.size) { DOUBT }
    private var trial: Trial? = null
    private var headroom = Double.NaN
    private var sinceHeat = Double.POSITIVE_INFINITY
    private var ceiling = rising.size - 1
    private var at = 0
    private var stayed = 0.0
    private var calm = 0.0
    private var calmAndFit = 0.0

    init {
        require(latencyBudget != null || energyBudget != null) {
            "Expected latencyBudget or energyBudget. Received neither."
        }
        require(window >= 1) { "window must be a positive integer. Received: $window" }
        require(0 < cool && cool <= hot && hot <= 1) {
            "Expected 0 <= margin < hot <= 1. Received: margin=$margin, hot=$hot"
        }
        atLeast("overshoot", overshoot, 1.0)
        val relative = checkedCosts(costs)
        // Without a budget for it, the latency is still averaged.
        val seconds =
            if (latencyBudget == null) Double.POSITIVE_INFINITY
            else positive("latencyBudget", latencyBudget)
        latency = Gauge(seconds, relative, window, margin, overshoot)
        gauges =
            if (energyBudget == null) {
                listOf(latency)
            } else {
                val joules = positive("energyBudget", energyBudget)
                listOf(latency, Gauge(joules, relative, window, margin, overshoot))
            }
        go(if (start == null) rising.size - 1 else indexOf(start))
    }

    /** The percentage to run the next call at. */
    val percentage: Int
        get() = rising[at]

    /** Moving average of the latency at [percentage], NaN before its first call. */
    val average: Double
        get() = if (latency.count == 0) Double.NaN else latency.average

    /**
     * Records a call and returns the percentage for the next one.
     *
     * @param latency seconds the call took
     * @param energy joules it took, if they were measured
     * @param headroom a new thermal headroom; NaN: there is none, the last one stays
     * @param percentage the one that the call ran at; if a switch happened during the call, only
     *   headroom and elapsed time are used
     * @param elapsed time since the last record, in the unit of `hold`; default: one call
     * @throws IllegalArgumentException if a value is negative, infinite or NaN (except headroom),
     *   or the percentage is not one of the governor's; nothing is recorded then
     */
    fun record(
        latency: Double,
        energy: Double? = null,
        headroom: Double = Double.NaN,
        percentage: Int = this.percentage,
        elapsed: Double = 1.0,
    ): Int {
        atLeast("latency", latency, 0.0)
        if (energy != null) atLeast("energy", energy, 0.0)
        if (!headroom.isNaN()) atLeast("headroom", headroom, 0.0)
        atLeast("elapsed", elapsed, 0.0)
        val ranAt = indexOf(percentage)

        stayed += elapsed
        sinceHeat += elapsed
        trial?.let {
            if (gauges.all(Gauge::isFull) && stayed >= it.wait) {
                hasLasted(it)
                trial = null
            }
        }
        if (ranAt == at) {
            this.latency.record(latency)
            if (energy != null && gauges.size > 1) gauges[1].record(energy)
        }

        val target = target(headroom)
        if (target < at) {
            trial?.let {
                val exponents = if (it.fits) expected else doubted
                exponents[at] = min(it.exponent + 1, LONGEST)
            }
            trial = null
            go(target)
        } else if (at + 1 < rising.size) {
            considerAStepUp(elapsed)
        }
        return this.percentage
    }

    /** Where to be: here, or below if something is wrong. */
    private fun target(newHeadroom: Double): Int {
        var target = at
        if (gauges.any(Gauge::isOver)) {
            // A step up that failed left a percentage at which nothing was wrong.
            target = trial?.origin ?: highestBelow()
        }
        if (!newHeadroom.isNaN()) {
            // A phone takes its time to cool down: while it does, the last step was enough.
            val stillRising = !(newHeadroom < headroom)
            headroom = newHeadroom
            if (newHeadroom >= 1.0) {
                target = 0
            } else if (newHeadroom >= hot && stillRising && sinceHeat >= hold) {
                target = min(target, at - 1)
            } else {
                return target
            }
            sinceHeat = 0.0
            ceiling = min(ceiling, max(at - 1, 0))
        }
        return max(target, 0)
    }

    private fun highestBelow(): Int {
        for (lower in at - 1 downTo 1) if (fits(lower)) return lower
        return 0
    }

    private fun considerAStepUp(elapsed: Double) {
        if (!gauges.all(Gauge::isFull) || headroom >= cool || gauges.any(Gauge::isOver)) {
            calm = 0.0
            calmAndFit = 0.0
            return
        }
        val upper = at + 1
        val fits = fits(upper)
        calm += elapsed
        calmAndFit = if (fits) calmAndFit + elapsed else 0.0
        if (trial != null) return
        val exponents = if (fits) expected else doubted
        val exponent = if (upper > ceiling) LONGEST else exponents[upper]
        val wait = hold * (1 shl exponent)
        if ((if (fits) calmAndFit else calm) >= wait) {
            trial = Trial(at, fits, exponent, wait)
            ceiling = max(ceiling, upper)
            go(upper)
        }
    }

    private fun hasLasted(trial: Trial) {
        expected[at] = 0
        // A step that lasts against its prediction shows that the cost is too high.
        doubted[at] = if (trial.fits) min(doubted[at], DOUBT) else 0
    }

    private fun fits(index: Int): Boolean = gauges.all { it.fits(at, index) }

    private fun go(index: Int) {
        at = index
        stayed = 0.0
        calm = 0.0
        calmAndFit = 0.0
        gauges.forEach(Gauge::restart)
    }

    private fun indexOf(percentage: Int): Int {
        val index = rising.indexOf(percentage)
        require(index >= 0) {
            "Expected one of the governor's percentages, ${rising.asReversed()}. " +
                "Received: $percentage"
        }
        return index
    }

    private fun checkedCosts(costs: Map<Int, Double>?): DoubleArray {
        if (costs == null) return DoubleArray(rising.size) { rising[it].toDouble() }
        require(costs.keys == rising.toSet()) {
            "costs must hold a positive number for each of ${rising.asReversed()}. Received: $costs"
        }
        return DoubleArray(rising.size) { positive("costs[${rising[it]}]", costs[rising[it]]!!) }
    }

    /** A step up that has not lasted yet as long as it waited. */
    private class Trial(
        val origin: Int,
        val fits: Boolean,
        val exponent: Int,
        val wait: Double,
    )

    /** The moving average of one measured quantity, and its budget. */
    private class Gauge(
        private val budget: Double,
        private val costs: DoubleArray,
        private val window: Int,
        margin: Double,
        overshoot: Double,
    ) {
        private val room = (1.0 - margin) * budget
        private val clearlyOver = overshoot * budget
        var count = 0
            private set

        var average = 0.0
            private set

        fun restart() {
            count = 0
            average = 0.0
        }

        fun record(value: Double) {
            count += 1
            if (value > clearlyOver) {
                count = max(count, window)
                average = value
            } else {
                average += (value - average) / min(count, window)
            }
        }

        fun isFull(): Boolean = count >= window

        fun isOver(): Boolean = isFull() && average > budget

        /** Whether another percentage is predicted to leave the margin; yes before any call. */
        fun fits(here: Int, there: Int): Boolean =
            average / costs[here] * costs[there] <= room
    }

    companion object {
        /** A wait is `hold` times two to this many at most, ... */
        private const val LONGEST = 6

        /** ... and a step up that is predicted not to fit starts as if it had failed this often. */
        private const val DOUBT = 3

        private fun checkedPercentages(percentages: Collection<Int>): List<Int> {
            require(percentages.isNotEmpty()) {
                "percentages must hold at least one percentage. Received none."
            }
            require(percentages.all { it in 1..100 } && percentages.toSet().size == percentages.size) {
                "percentages must be distinct, from 1 to 100. Received: $percentages"
            }
            return percentages.sorted()
        }

        private fun positive(name: String, value: Double): Double {
            require(atLeast(name, value, 0.0) > 0.0) { "$name must be above 0. Received: $value" }
            return value
        }

        private fun atLeast(name: String, value: Double, least: Double): Double {
            require(value.isFinite() && value >= least) {
                "$name must be finite and at least $least. Received: $value"
            }
            return value
        }
    }
}
