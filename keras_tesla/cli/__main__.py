"""The same command without a script on the path: `python -m keras_tesla.cli`."""

from keras_tesla.cli.main import main

if __name__ == "__main__":
    main()
