"""The command `keras-tesla`: the tools of export/ without a clone, and `convert`."""
