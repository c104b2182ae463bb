// Stub, for compiling and testing only.
package org.tensorflow.lite;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;

public final class Interpreter implements AutoCloseable {
    public final int bytes;

    public Interpreter(File modelFile) {
        bytes = (int) modelFile.length();
    }

    public Interpreter(ByteBuffer byteBuffer) {
        boolean fits =
                byteBuffer instanceof MappedByteBuffer
                        || (byteBuffer.isDirect() && byteBuffer.order() == ByteOrder.nativeOrder());
        if (!fits) {
            throw new IllegalArgumentException("Expected a mapped or a direct buffer.");
        }
        bytes = byteBuffer.capacity();
    }

    @Override
    public void close() {}
}
