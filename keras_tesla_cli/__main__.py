"""The same command without a script on the path: `python -m keras_tesla_cli`."""

from keras_tesla_cli.main import main

if __name__ == "__main__":
    main()
