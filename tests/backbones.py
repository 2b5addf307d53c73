"""Tiny random versions of every backbone of the installed transformers that reads videos.

A configuration is the class's own with small numbers: sizes go by their names, and what a model needs beside them stands in
`_SPECIAL`.

video_backbones()            the model types of `AutoModelForImageTextToText` that read videos
tiny_backbone_config(kind)   a configuration of two layers and width 32
tiny_backbone(kind)          a random model of it
"""

from dataclasses import fields
from typing import Any

from tests.tiny import VOCAB_SIZE, enlarge_weights
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel


# A model type of `AutoModelForImageTextToText` reads videos if transformers has a video processor for it.
VIDEO_BACKBONES = (
    "cohere_compass",
    "cosmos3_edge",
    "cosmos3_omni",
    "dots3_note",
    "ernie4_5_vl_moe",
    "exaone4_5",
    "gemma4",
    "gemma4_unified",
    "glm46v",
    "glm4v",
    "glm4v_moe",
    "glm5_next",
    "glm_ocr",
    "glmga",
    "hy_v4_vl",
    "hyperclovax_vision_v2",
    "internvl",
    "kimi_k25",
    "lfm3_vl",
    "llava_next_video",
    "llava_onevision",
    "minicpm_ocr",
    "minicpmv4_6",
    "minicpmv4_7",
    "minimax_m3_vl",
    "molmo2",
    "muse_glimmer",
    "muse_spark",
    "nemotron_h_omni",
    "perception_lm",
    "qwen2_5_omni_thinker",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_omni_moe_thinker",
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen4_exp",
    "smolvlm",
    "video_llama_3",
    "video_llava",
)
_M_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
_TEXT = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_experts_intermediate_size": 16,
    "dense_intermediate_size": 48,
    "shared_intermediate_size": 16,
    "moe_hidden_size": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 64,
    "first_k_dense_replace": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_heads": 2,
    "linear_head_dim": 8,
}
_VISION = {
    "hidden_size": 32,
    "embed_dim": 32,
    "intermediate_size": 48,
    "depth": 2,
    "num_hidden_layers": 2,
    "num_heads": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "out_hidden_size": 32,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
    "fullatt_block_indexes": [1],
    "projection_dim": 32,
    "projection_intermediate_size": 32,
    "vocab_size": 100,
}
_AUDIO = {
    "hidden_size": 32,
    "d_model": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "encoder_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "head_dim": 16,
    "output_dim": 32,
    "out_hidden_size": 32,
}
_SIZES = {"text_config": _TEXT, "vision_config": _VISION, "audio_config": _AUDIO}
_IDS = {
    "image_token_id": 100,
    "video_token_id": 101,
    "image_token_index": 100,
    "video_token_index": 101,
    "vision_start_token_id": 102,
    "vision_end_token_id": 103,
    "image_start_token_id": 102,
    "image_end_token_id": 103,
    "video_start_token_id": 104,
    "video_end_token_id": 105,
    "audio_token_id": 106,
    "audio_start_token_id": 107,
    "user_token_id": 108,
}
_LINEAR_THEN_FULL = {"layer_types": ["linear_attention", "full_attention"]}
_QWEN_TEXT = {"text_config": {"rope_parameters": _M_ROPE}}
_SAME_HEADS = {"num_key_value_heads": 4}
_GEMMA4_TEXT = {
    "global_head_dim": 8,
    "num_global_key_value_heads": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    "vocab_size_per_layer_input": VOCAB_SIZE,
    "num_kv_shared_layers": 0,
}
_MUSE_TEXT = {"layer_types": ["sliding_attention", "full_attention"], "layer_rope_theta": [10000.0, 0]}
_MUSE_VISION = {"layer_types": ["window_attention", "full_attention"]}
_SPECIAL: dict[str, dict[str, Any]] = {
    "cohere_compass": {
        "text_config": {
            "layer_types": ["sliding_attention", "full_attention"],
            "logit_scale": 0.5,
            "rope_parameters": {"sliding_attention": _M_ROPE, "full_attention": None},
        }
    },
    "cosmos3_edge": _QWEN_TEXT,
    "dots3_note": {
        "text_config": {
            **_SAME_HEADS,
            "head_dim": 16,
            "layer_types": ["indexed_attention", "sliding_attention"],
            "mlp_layer_types": ["dense", "sparse"],
            "per_layer_config": {},
        },
        "vision_config": {
            "mlp_layer_types": ["dense", "dense"],
            "adapter_in_dim": 32,
            "adapter_out_dim": 32,
            "moe_intermediate_size": 16,
        },
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32, "downsample_hidden_size": 16},
    },
    "ernie4_5_vl_moe": {
        "text_config": {
            "moe_intermediate_size": [16, 16],
            "moe_num_experts": 4,
            "moe_k": 2,
            "rope_parameters": _M_ROPE,
        }
    },
    "gemma4": {"text_config": {**_GEMMA4_TEXT, "hidden_size_per_layer_input": 8}, "vision_config": {}},
    "gemma4_unified": {"text_config": {**_GEMMA4_TEXT, "hidden_size_per_layer_input": 0}, "vision_config": {}},
    "glm46v": _QWEN_TEXT,
    "glm4v": _QWEN_TEXT,
    "glm4v_moe": {"text_config": {"rope_parameters": {**_M_ROPE, "mrope_section": [1, 1, 0]}}},
    "glm5_next": {
        "text_config": {
            **_SAME_HEADS,
            "qk_rope_head_dim": 0,
            "layer_types": ["linear_attention", "indexed_attention"],
            "mlp_layer_types": ["dense", "sparse"],
        }
    },
    "glm_ocr": _QWEN_TEXT,
    "glmga": _QWEN_TEXT,
    "hy_v4_vl": {
        "text_config": {
            **_SAME_HEADS,
            "rope_parameters": _M_ROPE,
            "layer_types": ["indexed_attention", "indexed_attention"],
            "mlp_layer_types": ["dense", "sparse"],
            "indexer_types": ["full", "shared"],
        }
    },
    "hyperclovax_vision_v2": {"text_config": {"logits_scaling": 0.125, "embedding_multiplier": 2.0}},
    "kimi_k25": {"text_config": _SAME_HEADS},
    "lfm3_vl": {
        "text_config": {"layer_types": ["conv", "full_attention"]},
        "vision_config": {"layer_types": ["conv", "full_attention"]},
    },
    "minicpm_ocr": {"text_config": _LINEAR_THEN_FULL},
    "minicpmv4_6": {"text_config": _LINEAR_THEN_FULL},
    "minicpmv4_7": {"text_config": _LINEAR_THEN_FULL},
    "molmo2": {
        "text_config": {"additional_vocab_size": 512},  # room for new tokens, as Molmo has it
        "adapter_config": {
            "vision_feature_layer": [-1, -2],
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 48,
            "text_hidden_size": 32,
        },
        "image_patch_id": 100,
    },
    "muse_glimmer": {"text_config": _MUSE_TEXT, "vision_config": _MUSE_VISION, "out_hidden_size": 128},
    "muse_spark": {
        "text_config": _MUSE_TEXT,
        "vision_config": _MUSE_VISION,
        "audio_config": {"patch_sizes": [16], "hidden_sizes": [32], "depths": [1]},
        "out_hidden_size": 128,
    },
    "nemotron_h_omni": {
        "text_config": {
            "layers_block_type": ["mamba", "attention"],
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
        },
        "vision_config": {"video_temporal_patch_size": 2},
        "vision_hidden_size": 32,
    },
    "qwen2_5_omni_thinker": {**_QWEN_TEXT, "vision_start_token_id": 102, "vision_end_token_id": 103},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 102, "vision_end_token_id": 103},
    "qwen2_5_vl": _QWEN_TEXT,
    "qwen2_vl": _QWEN_TEXT,
    "qwen3_5": {"text_config": _LINEAR_THEN_FULL},
    "qwen3_5_moe": {"text_config": _LINEAR_THEN_FULL},
    "qwen4_exp": {
        "text_config": {
            "layer_types": ["linear_attention", "indexed_attention"],
            "hc_lowrank": 8,
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 8,
            "indexer_budget": 64,
            "indexer_compress_ratio": 4,
        }
    },
}


def tiny_backbone_config(kind: str, **text_settings: Any) -> PreTrainedConfig:
    """Configure a backbone of two layers and width 32; `text_settings` go to its language model."""
    config_class = CONFIG_MAPPING[kind]
    default, special = config_class(), _SPECIAL.get(kind, {})
    parts = {}
    for part, sizes in _SIZES.items():
        part_class = type(getattr(default, part, None))
        if part_class is type(None) and part in special:  # left out by default
            part_class = config_class.sub_configs[part]
        if issubclass(part_class, PreTrainedConfig):
            known = {field.name for field in fields(part_class)}
            settings = {name: size for name, size in sizes.items() if name in known} | special.get(part, {})
            parts[part] = part_class(**settings, **(text_settings if part == "text_config" else {}))
    known = {field.name for field in fields(default)}
    ids = {name: token_id for name, token_id in _IDS.items() if name in known}
    ids |= {"projector_hidden_size": 32} if "projector_hidden_size" in known else {}
    rest = {name: value for name, value in special.items() if name not in _SIZES}
    return config_class(**parts, **ids, **rest)


def tiny_backbone(kind: str, **text_settings: Any) -> PreTrainedModel:
    """Make a random model, its weights so large that logits differ clearly between tokens."""
    model = AutoModelForImageTextToText.from_config(tiny_backbone_config(kind, **text_settings))
    enlarge_weights(model)
    return model
