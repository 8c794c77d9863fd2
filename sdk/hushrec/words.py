"""Title words as hashed buckets, the same in training and for items that reach a device later.

Words are runs of letters and digits, case-folded and NFKC-normalised; a bucket is CRC-32 of the UTF-8 word modulo the
number of buckets (Weinberger et al. 2009, arXiv:0902.2206, without the sign). Not meant for search.
"""

import re
import unicodedata
import zlib

__all__ = ["WORD_BUCKETS", "word_buckets"]

WORD_BUCKETS = 4096
_MAX_WORDS = 24
_WORD = re.compile(r"\w+")


def word_buckets(title: str, buckets: int = WORD_BUCKETS) -> list[int]:
    """Hash the distinct words of a title, in order, at most 24 of them.

    >>> word_buckets("Red mug, red MUG", 4096) == word_buckets("red mug")
    True
    >>> word_buckets("")
    []
    """
    words = dict.fromkeys(_WORD.findall(unicodedata.normalize("NFKC", title).casefold()))
    hashed = (zlib.crc32(word.encode()) % buckets for word in words)
    return list(dict.fromkeys(hashed))[:_MAX_WORDS]
