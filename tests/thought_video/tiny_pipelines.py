"""Tiny random video models of diffusers, saved as a user's are: a folder that `from_pretrained` opens."""

import warnings
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # diffusers warns of what other packages lack
    from diffusers import (
        AutoencoderKLLTXVideo,
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        LTXConditionPipeline,
        LTXImageToVideoPipeline,
        LTXVideoTransformer3DModel,
        WanImageToVideoPipeline,
        WanTransformer3DModel,
    )

_SENTENCES = ["predict the next seconds of the video", "imagine what happens after the rider turns left"]
_TEXT_ENCODER = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, "is_encoder_decoder": False}
SMALL = {"height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 2, "dtype": "float32", "device": "cpu"}
SHORT_TEXT = {"max_sequence_length": 16}


def tiny_wan(folder: Path, *, ti2v: bool) -> Path:
    """Save a Wan that takes an image: as Wan 2.2 TI2V does, or in 36 channels as the I2V models."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16 if ti2v else 36,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    tokenizer = _tokenizer()
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=len(tokenizer), relative_attention_num_buckets=8, **_TEXT_ENCODER)
    ).eval()
    pipeline = WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=transformer,
        expand_timesteps=ti2v,
    )
    pipeline.save_pretrained(folder)
    return folder


def tiny_ltx(folder: Path, *, conditions: bool) -> Path:
    """Save an LTX that takes an image, or any conditions."""
    torch.manual_seed(0)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=32,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    tokenizer = _tokenizer()
    encoder = T5EncoderModel(T5Config(vocab_size=len(tokenizer), **_TEXT_ENCODER)).eval()
    kind = LTXConditionPipeline if conditions else LTXImageToVideoPipeline
    scheduler = FlowMatchEulerDiscreteScheduler()
    pipeline = kind(transformer=transformer, vae=vae, scheduler=scheduler, text_encoder=encoder, tokenizer=tokenizer)
    pipeline.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(_SENTENCES * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
