"""Real clips of installed packages, and small ones whose frames say their own number in black and white stripes."""

import struct
from fractions import Fraction
from importlib.metadata import files
from pathlib import Path

import av
import numpy as np


NUM_BITS = 6  # up to 64 frames


def installed_clip(distribution, name):
    return next(Path(str(file.locate())) for file in files(distribution) if file.name == name)


def numbered_frames(count, height=48, width=64):
    bits = np.arange(count)[:, None] >> np.arange(NUM_BITS) & 1
    stripe = np.arange(width) * NUM_BITS // width
    return np.broadcast_to(255 * bits[:, None, stripe, None], (count, height, width, 3)).astype(np.uint8)


def natural_frames(count, height=224, width=392, seed=0):
    """Gradients under the noise of a sensor, in a camera that shakes: what an encoder finds hard, unlike drawings."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase = draw.uniform(0, 7, 3)
    waves = np.stack(
        [np.sin(x / 17 + y / 29 + phase[0]), np.cos(x / 11 + phase[1]), np.sin(y / 7 + phase[2])], axis=-1
    )
    shaken = [np.roll(waves, draw.integers(-4, 5, 2) + (0, 3 * number), axis=(0, 1)) for number in range(count)]
    noisy = [128 + 60 * frame + draw.normal(0, 6, frame.shape) for frame in shaken]
    return np.clip(np.stack(noisy), 0, 255).astype(np.uint8)


def stirred_heap(number):
    """Leave other bytes in freed memory, which some encoders read."""
    for size in (100 * number + 1, 37632, 12544 + number, 5000):
        np.random.default_rng(number).integers(0, 255, size, dtype=np.uint8)


def numbers(frames):
    """Read the number of each frame off its stripes."""
    stripe = np.arange(frames.shape[2]) * NUM_BITS // frames.shape[2]
    levels = np.stack([frames[:, :, stripe == bit].mean(axis=(1, 2, 3)) for bit in range(NUM_BITS)], axis=1)
    return ((levels > 127) << np.arange(NUM_BITS)).sum(axis=1).tolist()


def encode(
    path,
    frames,
    *,
    codec="libx264",
    pix_fmt="yuv420p",
    fps=10,
    times=None,
    keyframe_every=1000,
    container=None,
    aspect=None,
    **options,
):
    """Write frames; `times` are in hundredths of a second."""
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.gop_size = keyframe_every
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for position, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[position], Fraction(1, 100)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def encode_sound(path, codec="libmp3lame", seconds=1):
    rate = 44100
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        tone = (np.sin(np.arange(rate * seconds) / 20) * 9000).astype(np.int16)[None]
        sound = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        sound.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format, layout=stream.layout, rate=rate, frame_size=1152)
        for piece in [*resampler.resample(sound), *resampler.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return path


def with_cover(path, sound):
    """Put a picture in front of an MP3 file, as music shops do (ID3v2.3, APIC)."""
    encoder = av.CodecContext.create("png", "w")
    encoder.width = encoder.height = 16
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 1)
    picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
    png = b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
    content = b"\0image/png\0\3\0" + png
    frame = b"APIC" + struct.pack(">IH", len(content), 0) + content
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\3\0\0" + size + frame + sound.read_bytes())
    return path


def turned(path, clip, quarter_turns_clockwise):
    """Ask players to turn the picture, by the matrix of the track header."""
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter_turns_clockwise]
    data = bytearray(clip.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    struct.pack_into(">4i", data, matrix, cosine << 16, sine << 16, 0, -sine << 16)
    struct.pack_into(">i", data, matrix + 16, cosine << 16)
    path.write_bytes(data)
    return path


def starting_at(path, clip, seconds):
    """Hide the beginning with an edit list, as cutting without encoding again does."""
    data = bytearray(clip.read_bytes())
    rate = struct.unpack_from(">I", data, data.index(b"mdhd") + 4 + 12)[0]
    entry = data.index(b"elst") + 12
    duration, media_time = struct.unpack_from(">2i", data, entry)
    struct.pack_into(">2i", data, entry, duration - int(1000 * seconds), media_time + int(rate * seconds))
    path.write_bytes(data)
    return path


def damaged(path, clip, first, last, value=None):
    """Overwrite a part (given as shares) of the compressed pictures: with noise, or with one value."""
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 4
    size = struct.unpack_from(">I", data, start - 8)[0] - 8
    begin, end = start + int(first * size), start + int(last * size)
    noise = np.random.default_rng(0).integers(256, size=end - begin, dtype=np.uint8)
    data[begin:end] = noise.tobytes() if value is None else bytes([value]) * (end - begin)
    path.write_bytes(data)
    return path


def cut_off(path, clip, share):
    """Keep the first part (given as a share) of a file, as a broken download does."""
    data = clip.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def repeated(path, seconds, height, width):
    """Write one gray picture again and again, one a second: hours of video in no time, each picture a keyframe."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=1, options={"tune": "zerolatency"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        (only,) = stream.encode(_gray(height, width, "yuv420p"))
        for second in range(seconds):
            packet = av.Packet(bytes(only))
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1), True
            packet.pts = packet.dts = second
            file.mux(packet)
    return path


def huge(path, side):
    """Write one picture of one bit per pixel: little to write, and three bytes for each pixel to whoever reads it."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = side, side, "monob"
        for frame in (_gray(side, side, "monob"), None):
            file.mux(stream.encode(frame))
    return path


def claiming_size(path, clip, side):
    """Change the size of the picture in the headers of an AVI file, and not the pictures."""
    data = bytearray(clip.read_bytes())
    for field in (data.index(b"avih") + 8 + 32, data.index(b"strf") + 8 + 4):
        struct.pack_into("<2i", data, field, side, side)
    path.write_bytes(data)
    return path


def growing(path, sizes):
    """Write raw H.264 whose pictures change their size, (height, width), on the way."""
    data = b""
    for height, width in sizes:
        encoder = av.CodecContext.create("libx264", "w")
        encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = height, width, "yuv420p", Fraction(1, 10)
        data += b"".join(
            bytes(packet) for frame in (_gray(height, width, "yuv420p"), None) for packet in encoder.encode(frame)
        )
    path.write_bytes(data)
    return path


def _gray(height, width, pix_fmt):
    frame = av.VideoFrame(width, height, pix_fmt)
    frame.pts, frame.time_base = 0, Fraction(1)
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    return frame
