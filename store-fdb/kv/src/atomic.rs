//! Atomic operations: FoundationDB's byte semantics (API version 520 and later).
//!
//! The arithmetic ones read both operands as unsigned little-endian integers and give a result
//! as wide as the operand: a longer stored value is cut off, a shorter one is padded with zeros.

use bytes::Bytes;

use crate::{Error, Result, Versionstamp, limits::VALUE_BYTES_MAX};

/// A change to a value that the store applies at commit, without a read by the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtomicOp {
    /// Little-endian addition; an absent value counts as zero.
    Add,
    /// Bitwise and; an absent value becomes the operand.
    BitAnd,
    /// Bitwise or.
    BitOr,
    /// Bitwise exclusive or.
    BitXor,
    /// The larger little-endian integer.
    Max,
    /// The smaller little-endian integer; an absent value becomes the operand.
    Min,
    /// The larger byte string.
    ByteMax,
    /// The smaller byte string; an absent value becomes the operand.
    ByteMin,
    /// Clears the key where its value equals the operand.
    CompareAndClear,
    /// Appends the operand, unless the value would grow over its limit.
    AppendIfFits,
    /// Sets a key that holds the commit's versionstamp: the key's last four bytes
    /// (little-endian) say where its ten bytes go, and are cut off.
    SetVersionstampedKey,
    /// Sets a value that holds the commit's versionstamp: the same, for the operand.
    SetVersionstampedValue,
}

impl AtomicOp {
    /// The value after the operation, `None` for no value. The versionstamped operations set
    /// their operand: by now its stamp has been filled in.
    pub(crate) fn apply(self, existing: Option<&Bytes>, operand: &Bytes) -> Option<Bytes> {
        let stored: &[u8] = existing.map_or(&[], |bytes| bytes);
        let result = match self {
            Self::Add => add(stored, operand),
            Self::BitAnd if existing.is_none() => operand.clone(),
            Self::BitAnd => {
                operand.iter().zip(padded(stored)).map(|(right, left)| left & right).collect()
            }
            Self::BitOr => {
                operand.iter().zip(padded(stored)).map(|(right, left)| left | right).collect()
            }
            Self::BitXor => {
                operand.iter().zip(padded(stored)).map(|(right, left)| left ^ right).collect()
            }
            Self::Max => choose(stored, operand, std::cmp::Ordering::Greater),
            Self::Min if existing.is_none() => operand.clone(),
            Self::Min => choose(stored, operand, std::cmp::Ordering::Less),
            Self::ByteMax => existing.filter(|stored| *stored > operand).unwrap_or(operand).clone(),
            Self::ByteMin => existing.filter(|stored| *stored < operand).unwrap_or(operand).clone(),
            Self::CompareAndClear => return existing.filter(|stored| *stored != operand).cloned(),
            Self::AppendIfFits => match existing {
                Some(stored) if stored.len() + operand.len() > VALUE_BYTES_MAX => stored.clone(),
                _ => [stored, operand].concat().into(),
            },
            Self::SetVersionstampedKey | Self::SetVersionstampedValue => operand.clone(),
        };
        Some(result)
    }
}

/// `stored` with endless zeros after it.
fn padded(stored: &[u8]) -> impl Iterator<Item = u8> + '_ {
    stored.iter().copied().chain(std::iter::repeat(0))
}

fn add(stored: &[u8], operand: &[u8]) -> Bytes {
    let mut carry = false;
    operand
        .iter()
        .zip(padded(stored))
        .map(|(right, left)| {
            let (sum, over) = right.overflowing_add(left);
            let (sum, over_by_carry) = sum.overflowing_add(u8::from(carry));
            carry = over || over_by_carry;
            sum
        })
        .collect()
}

/// The stored value, as wide as the operand, where it compares as `wanted`; else the operand.
///
/// Only a stored value's low bytes are compared where it is wider than the operand, as
/// FoundationDB does.
fn choose(stored: &[u8], operand: &Bytes, wanted: std::cmp::Ordering) -> Bytes {
    let fitted: Vec<u8> = padded(stored).take(operand.len()).collect();
    if fitted.iter().rev().cmp(operand.iter().rev()) == wanted {
        fitted.into()
    } else {
        operand.clone()
    }
}

/// Where the ten bytes of the stamp begin, and the template without its four offset bytes.
///
/// # Errors
/// [`Error::InvalidVersionstampOffset`] where the ten bytes are not all inside the template.
pub(crate) fn stamp_position(template: &[u8]) -> Result<(usize, &[u8])> {
    let (body, offset) = template.split_last_chunk().ok_or(Error::InvalidVersionstampOffset)?;
    let offset = usize::try_from(u32::from_le_bytes(*offset))
        .map_err(|_| Error::InvalidVersionstampOffset)?;
    match offset.checked_add(10) {
        Some(end) if end <= body.len() => Ok((offset, body)),
        _ => Err(Error::InvalidVersionstampOffset),
    }
}

/// The template with the stamp in it.
///
/// # Errors
/// As [`stamp_position`].
pub(crate) fn stamped(template: &[u8], stamp: &Versionstamp) -> Result<Bytes> {
    stamped_with(template, stamp.as_bytes())
}

/// The template with any ten bytes in the stamp's place.
pub(crate) fn stamped_with(template: &[u8], stamp: &[u8; 10]) -> Result<Bytes> {
    let (offset, body) = stamp_position(template)?;
    let mut bytes = body.to_vec();
    bytes[offset..offset + 10].copy_from_slice(stamp);
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_must_lie_inside_its_template() {
        let template =
            |body: usize, offset: u32| [vec![7; body], offset.to_le_bytes().to_vec()].concat();
        let stamp = Versionstamp::new(1, 2);
        assert_eq!(
            stamped(&template(12, 1), &stamp).unwrap(),
            [&[7][..], stamp.as_bytes(), &[7]].concat()
        );
        assert_eq!(stamped(&template(10, 0), &stamp).unwrap(), stamp.as_bytes().as_slice());
        for bad in [template(10, 1), template(9, 0), template(20, u32::MAX), vec![1, 2, 3]] {
            assert_eq!(stamped(&bad, &stamp), Err(Error::InvalidVersionstampOffset));
        }
    }
}
