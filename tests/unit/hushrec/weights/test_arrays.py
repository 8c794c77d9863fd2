"""Arrays in one file come back from where they were put."""

import numpy as np
from hushrec.weights.arrays import pack_arrays
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

any_array = st.sampled_from([np.float32, np.uint8, np.uint32]).flatmap(
    lambda dtype: arrays(dtype, st.lists(st.integers(0, 5), min_size=1, max_size=2).map(tuple))
)


@given(st.dictionaries(st.text(min_size=1, max_size=5), any_array, max_size=6))
def test_packed_arrays_come_back_from_their_places(packed: dict[str, np.ndarray]) -> None:
    content, where = pack_arrays("a.bin", packed)
    end = 0
    for name, array in packed.items():
        place = where[name]
        assert (place.file, place.shape) == ("a.bin", array.shape)
        assert place.offset % 64 == 0
        assert place.offset >= end
        end = place.offset + array.nbytes
        found = np.frombuffer(content[place.offset : end], place.dtype).reshape(place.shape)
        np.testing.assert_array_equal(found, array)
    assert len(content) == end


def test_an_array_that_is_not_laid_out_in_rows_is_packed_in_rows() -> None:
    turned = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    content, _ = pack_arrays("a.bin", {"turned": turned})
    assert list(content) == [0, 3, 1, 4, 2, 5]
