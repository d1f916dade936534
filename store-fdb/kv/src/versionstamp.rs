//! Versionstamps: a commit's place in the total order of commits.

/// Ten bytes, unique to a committed transaction and ascending in commit order: the commit
/// version (8 bytes, big-endian) and the transaction's number in its batch (2 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Versionstamp([u8; 10]);

impl Versionstamp {
    /// The versionstamp of transaction `batch` of the batch that committed at `version`.
    pub fn new(version: u64, batch: u16) -> Self {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&version.to_be_bytes());
        bytes[8..].copy_from_slice(&batch.to_be_bytes());
        Self(bytes)
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }

    /// Its bytes, which sort as it does.
    pub const fn as_bytes(&self) -> &[u8; 10] {
        &self.0
    }

    /// The commit version. All transactions of one batch share it.
    pub fn version(&self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("ten bytes hold eight"))
    }

    /// The transaction's number in its batch.
    pub fn batch(&self) -> u16 {
        u16::from_be_bytes(*self.0.last_chunk().expect("ten bytes hold two"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_and_order_is_version_then_batch() {
        let stamp = Versionstamp::new(0x0102_0304_0506_0708, 0x090a);
        assert_eq!(stamp.as_bytes(), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!((stamp.version(), stamp.batch()), (0x0102_0304_0506_0708, 0x090a));
        assert_eq!(Versionstamp::from_bytes(*stamp.as_bytes()), stamp);
        assert!(Versionstamp::new(1, 2) < Versionstamp::new(1, 3));
        assert!(Versionstamp::new(1, u16::MAX) < Versionstamp::new(2, 0));
    }
}
