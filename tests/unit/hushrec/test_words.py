"""Title words as buckets: the same for the same words, whatever their case, order of marks or repetition."""

import zlib

from hushrec.words import WORD_BUCKETS, word_buckets
from hypothesis import given
from hypothesis import strategies as st


def test_a_bucket_is_the_crc_of_the_folded_word() -> None:
    assert word_buckets("Tea-Cup 3") == [zlib.crc32(word) % WORD_BUCKETS for word in (b"tea", b"cup", b"3")]


def test_letters_of_any_script_count_and_forms_of_one_letter_are_one() -> None:
    assert word_buckets("STRASSE") == word_buckets("straße")
    assert word_buckets("ﬁne") == word_buckets("fine")
    assert word_buckets("cafe\u0301") == word_buckets("caf\u00e9")
    assert len(word_buckets("陶器 カップ")) == 2


def test_a_long_title_keeps_its_first_24_words() -> None:
    words = [f"word{number}" for number in range(60)]
    assert word_buckets(" ".join(words), 2**31) == word_buckets(" ".join(words[:24]), 2**31)


@given(st.text(max_size=80), st.integers(1, 50))
def test_any_text_gives_distinct_buckets_in_range(title: str, buckets: int) -> None:
    found = word_buckets(title, buckets)
    assert len(set(found)) == len(found) <= 24
    assert all(0 <= bucket < buckets for bucket in found)
    assert found == word_buckets(title.upper().lower(), buckets) or title != title.upper().lower()
