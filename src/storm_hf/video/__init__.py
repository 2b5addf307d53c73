"""Video reading and writing: a clip in, frames with true timestamps out, and frames back into a clip."""

from storm_hf.video.clip_file import VideoClip
from storm_hf.video.decode import read_video
from storm_hf.video.library_backends import set_video_backend
from storm_hf.video.limits import VideoLimits, bounded_reading
from storm_hf.video.write import write_video


__all__ = ["VideoClip", "VideoLimits", "bounded_reading", "read_video", "set_video_backend", "write_video"]
