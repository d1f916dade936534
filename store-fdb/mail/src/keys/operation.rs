//! Operation ids: the guard against a commit whose result was never heard.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Operation, A, day, id) | versionstamp (10 B) then the outcome | written with the operation; a day's keys are swept two days later, in one clear |

use kv::{Subspace, tuple::pack};

use crate::{AccountId, OperationId};

/// (Operation, A, day, id)
pub fn key(account: AccountId, day: u32, id: OperationId) -> Vec<u8> {
    pack(&(Subspace::Operation as u64, account.0, day, &id.as_bytes()[..]))
}

/// Every operation of `account` before `day`.
pub fn range_before(account: AccountId, day: u32) -> (Vec<u8>, Vec<u8>) {
    let (begin, _) = super::range_of(pack(&(Subspace::Operation as u64, account.0)));
    (begin, pack(&(Subspace::Operation as u64, account.0, day)))
}

/// Every operation of `account`.
pub fn range(account: AccountId) -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::Operation as u64, account.0)))
}
