//! EXPUNGE, and the emptying of a mailbox that is being deleted.

use kv::RangeQuery;

use crate::{AccountUnit, EmailId, MailboxId, StoreError, StoreTarget, Uid, keys, limits};

/// Which of the targets to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpungeMode {
    /// Those that carry `\Deleted` (RFC 9051 §6.4.3).
    Deleted,
    /// All.
    All,
}

/// Removes the targets from `mailbox` and returns the UIDs that went. Emails that no mailbox
/// holds any more cease to exist. Running it again changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn expunge(
    unit: &mut AccountUnit,
    mailbox: MailboxId,
    mode: ExpungeMode,
    targets: &[StoreTarget],
) -> Result<Vec<Uid>, StoreError> {
    let mut removed = Vec::new();
    for target in targets {
        let Some(state) = unit.email(target.email).await? else { continue };
        let before = state.memberships.len();
        state.memberships.retain(|m| {
            let here = m.mailbox == mailbox.0 && m.uid == target.uid.number();
            !here || (mode == ExpungeMode::Deleted && !m.deleted)
        });
        if state.memberships.len() < before {
            removed.push(target.uid);
        }
    }
    Ok(removed)
}

/// How far [`remove_mailbox_contents`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Emails after this one are still to be looked at.
    More(EmailId),
    /// None is left.
    Done,
}

/// Takes the emails after `after` out of a mailbox that is being deleted, as many as one
/// transaction bears. Goes through the account's states, which needs no view.
///
/// # Errors
/// [`StoreError`].
pub async fn remove_mailbox_contents(
    unit: &mut AccountUnit,
    mailbox: MailboxId,
    after: Option<EmailId>,
) -> Result<Progress, StoreError> {
    let (first, end) = keys::email::state_range(unit.account);
    let begin = after.map_or(first, |after| {
        keys::email::state_key(unit.account, EmailId(after.0.saturating_add(1)))
    });
    // The snapshot read finds candidates only; `email` reads each one again, with conflict.
    let query = RangeQuery::new(begin, end).limit(limits::EMAILS_PER_UNIT_MAX).snapshot();
    let states = unit.tx.range(query).collect().await?;
    let mut last = None;
    for pair in &states {
        let Some(email) = keys::email::email_of(&pair.key) else {
            return Err(StoreError::damaged("email state", "a key that is no email's"));
        };
        last = Some(email);
        let (_, state) = keys::email::decode_state(&pair.value)?;
        if state.memberships.iter().any(|m| m.mailbox == mailbox.0)
            && let Some(state) = unit.email(email).await?
        {
            state.memberships.retain(|m| m.mailbox != mailbox.0);
        }
    }
    Ok(match last {
        Some(last) if states.len() == limits::EMAILS_PER_UNIT_MAX => Progress::More(last),
        _ => Progress::Done,
    })
}
