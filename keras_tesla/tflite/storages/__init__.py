"""How one file holds the weights of several percentages: a class for each way."""

from keras_tesla.tflite.storages.plain import Plain
from keras_tesla.tflite.storages.shared import Shared
from keras_tesla.tflite.storages.storage import Storage

STORAGES: dict[str, Storage] = {storage.name: storage for storage in (Shared(), Plain())}
