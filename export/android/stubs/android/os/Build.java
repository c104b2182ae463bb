// Stub, for compiling and testing only.
package android.os;

public class Build {
    public static class VERSION {
        /** Final on Android. */
        public static int SDK_INT = VERSION_CODES.R;
    }

    public static class VERSION_CODES {
        public static final int R = 30;
    }
}
