"""Opening, decoding, turning, resizing and writing videos: every frame, in presentation order.

The only importer of `av`. A file is judged by its content, never by its name; it must be a
regular local file in one of the formats that `opening` lists, and nothing it refers to is opened.
"""

from memfeat.video.completeness import PARTIAL
from memfeat.video.frame_folder import files_of, open_reader, sha256_of_video
from memfeat.video.header import frames_by_header
from memfeat.video.pictures import BICUBIC, INTERPOLATIONS, Pixels, crop_square, resize, squash
from memfeat.video.reading import Frame, VideoReader
from memfeat.video.writing import write_video

__all__ = [
    "BICUBIC",
    "INTERPOLATIONS",
    "PARTIAL",
    "Frame",
    "Pixels",
    "VideoReader",
    "crop_square",
    "files_of",
    "frames_by_header",
    "open_reader",
    "resize",
    "sha256_of_video",
    "squash",
    "write_video",
]
