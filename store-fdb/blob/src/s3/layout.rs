//! From an object's length to the blob's, and where its trailer is.

use crate::{
    limits::{BLOB_BYTES_MAX, CHUNK_BYTES, WINDOW_BYTES},
    store::to_u64,
};

/// Bytes of one chaining value.
pub(super) const VALUE_BYTES: u64 = 32;

/// The size of the blob in an object of `total` bytes; `None` where no blob has that many.
pub(super) fn size_of(total: u64) -> Option<u64> {
    let chunk = to_u64(CHUNK_BYTES);
    if total <= chunk {
        return Some(total);
    }
    let chunks = total.div_ceil(chunk + VALUE_BYTES);
    let size = total.checked_sub(chunks * VALUE_BYTES)?;
    let fits = chunks >= 2 && size.div_ceil(chunk) == chunks && size <= BLOB_BYTES_MAX;
    fits.then_some(size)
}

/// Bytes of window `number` of an object of `total` bytes.
pub(super) fn window(number: u32, total: u64) -> std::ops::Range<u64> {
    let start = (u64::from(number) * WINDOW_BYTES).min(total);
    start..(start + WINDOW_BYTES).min(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_tells_the_size() {
        let chunk = to_u64(CHUNK_BYTES);
        let total = |size: u64| {
            if size <= chunk { size } else { size + VALUE_BYTES * size.div_ceil(chunk) }
        };
        for chunks in [0, 1, 2, 3, 4, 5, 40, 4095, 4096, 4097, 16_383, 16_384] {
            for size in [chunks * chunk, chunks * chunk + 1, (chunks + 1) * chunk - 1] {
                let expected = (size <= BLOB_BYTES_MAX).then_some(size);
                assert_eq!(size_of(total(size)), expected, "{size}");
            }
        }
        for total in
            [chunk + 1, chunk + 64, chunk + 2 * VALUE_BYTES, 2 * (chunk + 32) + 1, u64::MAX]
        {
            assert_eq!(size_of(total), None, "{total}");
        }
        assert_eq!(size_of(chunk + 1 + 64), Some(chunk + 1));
        assert_eq!(window(1, 5), 5..5);
        assert_eq!(window(0, 5), 0..5);
        assert_eq!(window(1, WINDOW_BYTES + 7), WINDOW_BYTES..WINDOW_BYTES + 7);
    }
}
