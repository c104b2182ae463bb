// Stub, for compiling and testing only.
package android.os;

public class PowerManager {
    public float headroom = Float.NaN;
    public int asked = 0;
    public int lastForecastSeconds = -1;

    public float getThermalHeadroom(int forecastSeconds) {
        asked += 1;
        lastForecastSeconds = forecastSeconds;
        return headroom;
    }
}
