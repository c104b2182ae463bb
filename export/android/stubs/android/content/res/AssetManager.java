// Stub, for compiling and testing only.
package android.content.res;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.RandomAccessFile;
import java.nio.file.Files;

public class AssetManager {
    private final File folder;

    /** Bytes of other assets that precede each asset in its file. */
    public int bytesBefore = 0;

    public AssetManager(File folder) {
        this.folder = folder;
    }

    public InputStream open(String fileName) throws IOException {
        return new FileInputStream(new File(folder, fileName));
    }

    public AssetFileDescriptor openFd(String fileName) throws IOException {
        byte[] content = Files.readAllBytes(new File(folder, fileName).toPath());
        File apk = File.createTempFile("stub", ".apk");
        apk.deleteOnExit();
        try (RandomAccessFile file = new RandomAccessFile(apk, "rw")) {
            file.write(new byte[bytesBefore]);
            file.write(content);
            file.write(new byte[5]);
        }
        return new AssetFileDescriptor(new FileInputStream(apk), bytesBefore, content.length);
    }
}
