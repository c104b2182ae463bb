"""Small backbones of KerasHub with a classifier on top, for `foreign_models.py`.

They need the package `keras-hub`, which is no dependency of this project. The configs are ours: as
wide as a small network in use, with few blocks. Weights are random.
"""

import importlib.util

import keras
from keras import layers

_IMAGE = (64, 64, 3)
_TOKENS, _LENGTH = 100, 16


def _classifier(backbone):
    """The backbone's last feature map, averaged over the positions, and ten classes."""
    y = backbone.output
    if isinstance(y, dict):  # of a text model, or one map for each stage
        y = y.get("sequence_output", list(y.values())[-1])
    while len(y.shape) > 2:
        y = keras.ops.mean(y, axis=1)
    return keras.Model(backbone.input, layers.Dense(10)(y))


def _models():
    import keras_hub

    return keras_hub.models


def resnet():
    return _models().ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256],
        stackwise_num_blocks=[2, 2, 2],
        stackwise_num_strides=[1, 2, 2],
        block_type="bottleneck_block",
        image_shape=_IMAGE,
    )


def resnet_vd():
    return _models().ResNetBackbone(
        input_conv_filters=[32, 32, 64],
        input_conv_kernel_sizes=[3, 3, 3],
        stackwise_num_filters=[64, 128, 256],
        stackwise_num_blocks=[2, 2, 2],
        stackwise_num_strides=[1, 2, 2],
        block_type="basic_block_vd",
        image_shape=_IMAGE,
    )


def mobilenet():
    return _models().MobileNetBackbone(
        stackwise_expansion=[[64, 128], [144, 144]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[32, 32], [48, 48]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=288,
        input_activation="hard_swish",
        output_activation="hard_swish",
        input_num_filters=32,
        depthwise_filters=32,
        depthwise_stride=1,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=288,
        image_shape=_IMAGE,
    )


def mobilenetv5():
    return _models().MobileNetV5Backbone(
        stackwise_block_types=[["er"], ["uir", "uir"]],
        stackwise_num_blocks=[1, 2],
        stackwise_num_filters=[[32], [64, 64]],
        stackwise_strides=[[2], [2, 1]],
        stackwise_act_layers=[["relu"], ["relu", "relu"]],
        stackwise_exp_ratios=[[4.0], [6.0, 6.0]],
        stackwise_se_ratios=[[0.0], [0.0, 0.0]],
        stackwise_dw_kernel_sizes=[[0], [5, 5]],
        stackwise_dw_start_kernel_sizes=[[0], [0, 0]],
        stackwise_dw_end_kernel_sizes=[[0], [0, 0]],
        stackwise_exp_kernel_sizes=[[3], [0, 0]],
        stackwise_pw_kernel_sizes=[[1], [0, 0]],
        stackwise_num_heads=[[0], [0, 0]],
        stackwise_key_dims=[[0], [0, 0]],
        stackwise_value_dims=[[0], [0, 0]],
        stackwise_kv_strides=[[0], [0, 0]],
        stackwise_use_cpe=[[False], [False, False]],
        use_msfa=False,
        image_shape=_IMAGE,
    )


def efficientnet():
    return _models().EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 3,
        stackwise_depth_coefficients=[1.0] * 3,
        stackwise_kernel_sizes=[3, 3, 3],
        stackwise_num_repeats=[2, 2, 2],
        stackwise_input_filters=[32, 32, 64],
        stackwise_output_filters=[32, 64, 128],
        stackwise_expansion_ratios=[1, 4, 4],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.0, 0.25],
        stackwise_strides=[1, 2, 2],
        stackwise_block_types=["fused", "fused", "unfused"],
        stackwise_force_input_filters=[0, 0, 0],
        stackwise_nores_option=[False] * 3,
        input_shape=_IMAGE,
    )


def densenet():
    return _models().DenseNetBackbone(
        stackwise_num_repeats=[3, 4, 3], growth_rate=32, image_shape=_IMAGE
    )


def cspnet():
    return _models().CSPNetBackbone(
        stem_filters=32,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2, 2],
        stackwise_strides=[1, 2, 2],
        stackwise_num_filters=[64, 128, 256],
        block_type="dark_block",
        stage_type="dark",
        image_shape=_IMAGE,
    )


def vgg():
    return _models().VGGBackbone(
        stackwise_num_repeats=[1, 2, 2],
        stackwise_num_filters=[64, 128, 256],
        image_shape=_IMAGE,
    )


def xception():
    return _models().XceptionBackbone(
        stackwise_conv_filters=[[32, 64], [128, 128], [256, 256]],
        stackwise_pooling=[True, True, False],
        image_shape=_IMAGE,
    )


def hgnetv2():
    return _models().HGNetV2Backbone(
        depths=[1, 2, 2],
        embedding_size=32,
        hidden_sizes=[64, 128, 256],
        stem_channels=[3, 32, 32],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[
            (32, 32, 64, 1, 2, 3),
            (64, 64, 128, 2, 2, 3),
            (128, 128, 256, 2, 2, 3),
        ],
        apply_downsample=[False, True, True],
        use_lightweight_conv_block=[False, False, False],
        image_shape=_IMAGE,
    )


def deeplab():
    return _models().DeepLabV3Backbone(
        image_encoder=_models().ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 64, 128, 256],
            stackwise_num_blocks=[1, 1, 1, 1],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="bottleneck_block",
            image_shape=_IMAGE,
        ),
        projection_filters=48,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=[6, 12, 18],
        image_shape=_IMAGE,
    )


def vit():
    return _models().ViTBackbone(
        image_shape=_IMAGE,
        patch_size=16,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
    )


def deit():
    return _models().DeiTBackbone(
        image_shape=_IMAGE,
        patch_size=16,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
    )


def mit():
    return _models().MiTBackbone(
        image_shape=_IMAGE,
        num_layers=2,
        hidden_dims=[32, 64],
        layerwise_depths=[1, 1],
        layerwise_num_heads=[2, 4],
        layerwise_sr_ratios=[4, 2],
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        max_drop_path_rate=0.1,
    )


def swin():
    return _models().SwinTransformerBackbone(
        image_shape=_IMAGE, embed_dim=64, depths=(2, 2), num_heads=(4, 8), window_size=4
    )


def bert():
    return _models().BertBackbone(
        vocabulary_size=_TOKENS,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
        max_sequence_length=_LENGTH,
    )


def distilbert():
    return _models().DistilBertBackbone(
        vocabulary_size=_TOKENS,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
        max_sequence_length=_LENGTH,
    )


_BACKBONES = (
    *(resnet, resnet_vd, mobilenet, mobilenetv5, efficientnet, densenet, cspnet, vgg, xception),
    *(hgnetv2, deeplab, vit, deit, mit, swin, bert, distilbert),
)
INSTALLED = importlib.util.find_spec("keras_hub") is not None
# {name: function returning a model}
NETWORKS = {f"hub_{make.__name__}": lambda make=make: _classifier(make()) for make in _BACKBONES}
_SEQUENCES = {"token_ids": _LENGTH, "padding_mask": _LENGTH}
INPUT_SHAPES = {
    "hub_bert": dict.fromkeys((*_SEQUENCES, "segment_ids"), (_LENGTH,)),
    "hub_distilbert": dict.fromkeys(_SEQUENCES, (_LENGTH,)),
}
