"""The bytes of a file and of its folder: header, metadata, digest, manifest."""
