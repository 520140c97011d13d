"""What Pillow says of a file: whether it is an image at all, and which side of it is up. Without torch: the server asks too,
and the download's own loader uses this file."""

import struct
import warnings

from PIL import ExifTags, Image

UNREADABLE = (  # what Pillow raises of files that are no image, or a damaged one
    *(OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError),
    *(struct.error, LookupError, TypeError, OverflowError),
)
UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def side_up(image: Image.Image) -> int:
    """Which side is up, as EXIF or XMP say it: 1 to 8. Where they are damaged, the picture is taken as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cameras write odd EXIF; this is all that is asked of it
        try:
            found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
        except UNREADABLE:
            return UPRIGHT
    return found if found in TURNS else UPRIGHT


def upright(image: Image.Image) -> Image.Image:
    """The picture as it is meant to be seen. ImageOps.exif_transpose would write EXIF anew, which fails where it is damaged."""
    turn = TURNS.get(side_up(image))
    return image if turn is None else image.transpose(turn)
