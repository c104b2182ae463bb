"""Every public layer class of Keras: whether it becomes incomplete, is narrowed, or stays whole."""

import keras
import pytest
from keras import layers

from keras_tesla.kinds.kind import Whole
from keras_tesla.kinds.registry import registered


def each_rank(*names):
    return [f"{name}{rank}D" for name in names for rank in (1, 2, 3)]


# `to_idp` puts a class of keras_tesla in their place.
INCOMPLETE = """
    BatchNormalization Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Dense EinsumDense
    GroupQueryAttention LayerNormalization MultiHeadAttention RMSNormalization SeparableConv2D
""".split()

# They stay, and compute only what is read.
NARROWED = [
    *each_rank("AveragePooling", "Cropping", "GlobalAveragePooling", "GlobalMaxPooling"),
    *each_rank("MaxPooling", "SpatialDropout", "UpSampling", "ZeroPadding"),
    *each_rank("AdaptiveAveragePooling", "AdaptiveMaxPooling"),
    *"CenterCrop Permute PReLU RandomCrop RandomFlip RepeatVector Resizing".split(),
    *"Conv3DTranspose DepthwiseConv1D DepthwiseConv2D".split(),
    *"Activation Add AlphaDropout Average Concatenate Dropout ELU Flatten".split(),
    *"GaussianDropout GaussianNoise GroupNormalization Identity LeakyReLU Maximum".split(),
    *"Minimum Multiply ReLU Rescaling Reshape SeparableConv1D Softmax".split(),
    *"Subtract UnitNormalization".split(),
    *"Dot Embedding".split(),
]

# They stay, and read and compute all of their channels, because of the reason.
WHOLE = {
    "mixes the channels of queries and keys": "AdditiveAttention Attention".split(),
    "is recurrent: what it writes it reads again": [
        *"Bidirectional GRU GRUCell LSTM LSTMCell RNN SimpleRNN SimpleRNNCell".split(),
        *each_rank("ConvLSTM"),
        "StackedRNNCells",
    ],
    "is there to see all channels": "ActivityRegularization Masking".split(),
    "computes what another layer or function does": """
        FlaxLayer JaxLayer Lambda Layer Pipeline SpectralNormalization TFSMLayer TimeDistributed
        TorchModuleWrapper Wrapper
    """.split(),
    "is the first layer, or prepares what the first layer reads": [
        *"CategoryEncoding Discretization HashedCrossing Hashing InputLayer".split(),
        *"IntegerLookup MelSpectrogram Normalization ReversibleEmbedding STFTSpectrogram".split(),
        *"StringLookup TextVectorization".split(),
    ],
    "prepares images": """
        AugMix AutoContrast ContrastLimitedAdaptiveHistogramEqualization CutMix
        Equalization MaxNumBoundingBoxes MixUp RandAugment RandomBrightness RandomColorDegeneration
        RandomColorJitter RandomContrast RandomElasticTransform RandomErasing
        RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective
        RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
        RandomTranslation RandomZoom Solarization
    """.split(),
}


def test_every_public_layer_of_keras_is_in_one_list():
    listed = [*INCOMPLETE, *NARROWED, *(name for names in WHOLE.values() for name in names)]
    assert len(set(listed)) == len(listed)
    # By class: `MaxPool2D` and `MaxPooling2D` are one.
    public = {
        value.__name__: value
        for value in vars(layers).values()
        if isinstance(value, type) and issubclass(value, keras.Layer)
    }
    assert {getattr(layers, name) for name in listed} == set(public.values())


@pytest.mark.parametrize("name", INCOMPLETE)
def test_a_layer_with_an_incomplete_class(name):
    cls = getattr(layers, name)
    kind = registered()[cls]
    assert issubclass(kind.incomplete, cls)
    assert registered()[kind.incomplete].depends


@pytest.mark.parametrize("name", NARROWED)
def test_a_layer_that_is_narrowed_as_it_is(name):
    kind = registered()[getattr(layers, name)]
    assert kind.incomplete is None
    assert not kind.depends


@pytest.mark.parametrize("name", [name for names in WHOLE.values() for name in names])
def test_a_layer_that_stays_whole(name):
    kind = registered().get(getattr(layers, name))
    assert kind is None or isinstance(kind, Whole)  # which says what the layer costs
