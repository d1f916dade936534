//! BLAKE3's tree over our chunks.
//!
//! A chunk's chaining value and the values of all the others give the root, which is the blob's
//! hash; so one chunk can be checked against it without reading the rest.

use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::{BlobHash, limits::CHUNK_BYTES};

/// A subtree's hash that is not the root.
pub(crate) type ChainingValue = [u8; 32];

/// The chaining value of the chunk that begins at `offset`, a multiple of [`CHUNK_BYTES`].
pub(crate) fn chunk_value(offset: u64, bytes: &[u8]) -> ChainingValue {
    debug_assert!(bytes.len() <= CHUNK_BYTES && !bytes.is_empty());
    Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
}

/// The hash of the blob with these chunks; `None` for fewer than two, where the only chunk is
/// the root itself and has no chaining value.
pub(crate) fn root(chunks: &[ChainingValue]) -> Option<BlobHash> {
    if chunks.len() < 2 {
        return None;
    }
    let (left, right) = split(chunks);
    let hash = merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
    Some(BlobHash::from_bytes(*hash.as_bytes()))
}

fn subtree(chunks: &[ChainingValue]) -> ChainingValue {
    match chunks {
        [chunk] => *chunk,
        _ => {
            let (left, right) = split(chunks);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// BLAKE3's rule: the left subtree is the largest power of two that leaves something right.
fn split(chunks: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    chunks.split_at(chunks.len().next_power_of_two() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_the_chunks_is_the_hash_of_the_whole() {
        for chunks in [2, 3, 4, 5, 7, 8, 9] {
            for last in [1, 1023, 1024, 1025, CHUNK_BYTES] {
                let len = (chunks - 1) * CHUNK_BYTES + last;
                let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
                let values: Vec<ChainingValue> = bytes
                    .chunks(CHUNK_BYTES)
                    .enumerate()
                    .map(|(i, chunk)| chunk_value((i * CHUNK_BYTES) as u64, chunk))
                    .collect();
                assert_eq!(root(&values), Some(BlobHash::of(&bytes)), "{chunks} chunks, {last}");
            }
        }
        assert_eq!(root(&[[0; 32]]), None);
    }
}
