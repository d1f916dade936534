//! COPY and MOVE: an email becomes visible in another mailbox of its account.
//!
//! A copy is the same email in one more mailbox: flags are shared, `\Deleted` is not (RFC 8621
//! §4.1.1). Where the email is in the target already, IMAP still wants a second message there
//! (RFC 9051 §6.4.7), so it becomes a new email over the same blob.

use blob::BlobId;

use crate::{
    AccountUnit, EmailId, MailboxId, ModSeq, OperationId, StoreError, StoreTarget, ThreadId, Uid,
    UidValidity,
    append::{Immutable, write_immutable},
    error::store_error,
    keys::{
        self,
        email::{EmailMeta, EmailState, Membership},
    },
    limits,
    operation::{Outcome, OutcomeRow},
};

/// Whether the source keeps the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyMode {
    /// COPY.
    Copy,
    /// MOVE (RFC 6851): the message leaves the source in the same transaction.
    Move,
}

/// What became of the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The target's UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// Source UID and target UID, in the order asked for.
    pub pairs: Vec<(Uid, Uid)>,
    /// Not there any more.
    pub gone: Vec<Uid>,
    /// Set where an earlier try of this operation had already committed: its MODSEQ.
    pub earlier: Option<ModSeq>,
}

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The target does not exist.
    #[error("mailbox {0} does not exist")]
    NoMailbox(MailboxId),
    /// A second message over the same bytes does not fit.
    #[error("the copy exceeds the quota")]
    OverQuota,
    /// The email is in as many mailboxes as one may be.
    #[error("an email is in at most {max} mailboxes", max = limits::MEMBERSHIPS_PER_EMAIL_MAX)]
    TooManyMailboxes,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
store_error!(CopyError);

/// Copies or moves `targets` from `from` to `to`; all or nothing but for those that are gone.
/// At most [`limits::EMAILS_PER_UNIT_MAX`] targets a unit.
///
/// # Errors
/// [`CopyError`]; the transaction must then not commit.
pub async fn copy(
    unit: &mut AccountUnit,
    mode: CopyMode,
    from: MailboxId,
    to: MailboxId,
    targets: &[StoreTarget],
    operation: OperationId,
) -> Result<Copied, CopyError> {
    if let Some((modseq, outcome)) = unit.outcome(operation).await? {
        return Ok(from_record(modseq, &outcome));
    }
    let record = unit.mailbox(to).await?.ok_or(CopyError::NoMailbox(to))?;
    let mut copied = Copied {
        uid_validity: UidValidity(record.uid_validity),
        pairs: Vec::with_capacity(targets.len()),
        gone: Vec::new(),
        earlier: None,
    };
    for target in targets {
        match copy_one(unit, mode, from, to, *target).await? {
            Some(uid) => copied.pairs.push((target.uid, uid)),
            None => copied.gone.push(target.uid),
        }
    }
    unit.record(operation, &to_record(&copied));
    Ok(copied)
}

async fn copy_one(
    unit: &mut AccountUnit,
    mode: CopyMode,
    from: MailboxId,
    to: MailboxId,
    target: StoreTarget,
) -> Result<Option<Uid>, CopyError> {
    let Some(state) = unit.email(target.email).await? else { return Ok(None) };
    let here = |m: &Membership| m.mailbox == from.0 && m.uid == target.uid.number();
    if !state.memberships.iter().any(here) {
        return Ok(None);
    }
    let already_there = state.memberships.iter().any(|m| m.mailbox == to.0 && !here(m));
    let stays = mode == CopyMode::Copy;
    if stays && state.memberships.len() >= limits::MEMBERSHIPS_PER_EMAIL_MAX {
        return Err(CopyError::TooManyMailboxes);
    }
    let needs_own_email = if stays { already_there || from == to } else { already_there };
    let source = state.clone();
    let (_, uid) = unit.assign_uid(to).await?.ok_or(CopyError::NoMailbox(to))?;
    let place = Membership { mailbox: to.0, uid, deleted: false };
    if needs_own_email {
        duplicate(unit, target.email, &source, place).await?;
    }
    let Some(state) = unit.email(target.email).await? else { return Ok(None) };
    if !stays {
        state.memberships.retain(|m| !here(m));
    }
    if !needs_own_email {
        state.memberships.push(place);
    }
    Ok(Some(Uid::new(uid).ok_or_else(|| StoreError::damaged("uid next", "zero"))?))
}

/// A new email with the source's bytes, flags and thread.
async fn duplicate(
    unit: &mut AccountUnit,
    source: EmailId,
    state: &EmailState,
    place: Membership,
) -> Result<(), CopyError> {
    let key = keys::email::meta_key(unit.account, source);
    let value = unit
        .tx
        .get(&key)
        .await
        .map_err(StoreError::from)?
        .ok_or_else(|| StoreError::damaged("email meta", "a state without its meta"))?;
    let meta: EmailMeta = keys::decode("email meta", &value)?;
    let blob = BlobId::from_slice(&meta.blob)
        .ok_or_else(|| StoreError::damaged("email meta", "no blob id"))?;
    if unit.take_quota(state.size).await?.is_err() {
        return Err(CopyError::OverQuota);
    }
    let id = unit.assign_email().await?;
    let immutable = Immutable { meta: &value, thread_keys: &meta.thread_keys };
    write_immutable(unit, id, ThreadId(state.thread), &immutable);
    // The source's reference stands: its state was read.
    blob::references::share(&unit.tx, blob, &blob::Owner::Email(unit.account.0, id.0));
    unit.create_email(id, EmailState { memberships: vec![place], ..state.clone() });
    Ok(())
}

fn to_record(copied: &Copied) -> Outcome {
    let row = |(from, to): &(Uid, Uid)| OutcomeRow {
        from_uid: from.number(),
        to_uid: to.number(),
        ..OutcomeRow::default()
    };
    Outcome {
        rows: copied.pairs.iter().map(row).collect(),
        number: copied.uid_validity.0,
        refused: Vec::new(),
        gone: copied.gone.iter().map(|uid| uid.number()).collect(),
    }
}

fn from_record(modseq: ModSeq, outcome: &Outcome) -> Copied {
    let pair = |row: &OutcomeRow| Some((Uid::new(row.from_uid)?, Uid::new(row.to_uid)?));
    Copied {
        uid_validity: UidValidity(outcome.number),
        pairs: outcome.rows.iter().filter_map(pair).collect(),
        gone: outcome.gone.iter().copied().filter_map(Uid::new).collect(),
        earlier: Some(modseq),
    }
}
