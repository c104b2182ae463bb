"""The bytes of a file: constants, parts that open alone, metadata, the digest."""
