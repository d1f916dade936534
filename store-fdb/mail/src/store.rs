//! STORE: keywords and `\Deleted` change.

use crate::{
    AccountUnit, EmailId, KeywordSet, MailboxId, ModSeq, OperationId, StoreError, Uid, limits,
    operation::{Outcome, OutcomeRow},
};

/// How the given keywords change an email's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeywordChange {
    /// `FLAGS`: these and no others.
    Replace,
    /// `+FLAGS`.
    Add,
    /// `-FLAGS`.
    Remove,
}

/// What to change.
#[derive(Debug, Clone)]
pub struct StoreRequest {
    /// The mailbox whose UIDs are named.
    pub mailbox: MailboxId,
    /// How.
    pub change: KeywordChange,
    /// Which keywords.
    pub keywords: KeywordSet,
    /// Whether `\Deleted` is among the flags.
    pub deleted: Option<Deleted>,
    /// RFC 7162 §3.1.3: leave alone what changed after this.
    pub unchanged_since: Option<ModSeq>,
}

/// `\Deleted` is among the flags of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted;

/// One message to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreTarget {
    /// The email.
    pub email: EmailId,
    /// Its UID in the mailbox.
    pub uid: Uid,
}

/// What became of the targets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreOutcome {
    /// Done, or already so.
    pub stored: Vec<Uid>,
    /// Left alone because of `UNCHANGEDSINCE`.
    pub modified: Vec<Uid>,
    /// Not there any more.
    pub gone: Vec<Uid>,
    /// Refused: too many keywords.
    pub refused: Vec<Uid>,
}

/// Changes the targets' keywords; at most [`limits::EMAILS_PER_UNIT_MAX`] targets a unit.
///
/// With `UNCHANGEDSINCE` a second run would refuse what the first one changed, so `operation`
/// guards it; without, a second run changes nothing anyway.
///
/// # Errors
/// [`StoreError`].
pub async fn store_keywords(
    unit: &mut AccountUnit,
    request: &StoreRequest,
    targets: &[StoreTarget],
    operation: OperationId,
) -> Result<StoreOutcome, StoreError> {
    if request.unchanged_since.is_some()
        && let Some((_, outcome)) = unit.outcome(operation).await?
    {
        return Ok(from_record(&outcome));
    }
    let mut outcome = StoreOutcome::default();
    for target in targets {
        let list = match store_one(unit, request, *target).await? {
            One::Stored => &mut outcome.stored,
            One::Modified => &mut outcome.modified,
            One::Gone => &mut outcome.gone,
            One::Refused => &mut outcome.refused,
        };
        list.push(target.uid);
    }
    if request.unchanged_since.is_some() {
        unit.record(operation, &to_record(&outcome));
    }
    Ok(outcome)
}

enum One {
    Stored,
    Modified,
    Gone,
    Refused,
}

async fn store_one(
    unit: &mut AccountUnit,
    request: &StoreRequest,
    target: StoreTarget,
) -> Result<One, StoreError> {
    let Some(state) = unit.email(target.email).await? else { return Ok(One::Gone) };
    let place = state
        .memberships
        .iter()
        .position(|m| m.mailbox == request.mailbox.0 && m.uid == target.uid.number());
    let Some(place) = place else { return Ok(One::Gone) };
    let before = KeywordSet::from_record(&state.keywords);
    let after = match request.change {
        KeywordChange::Replace => request.keywords.clone(),
        KeywordChange::Add => before.union(&request.keywords),
        KeywordChange::Remove => before.difference(&request.keywords),
    };
    if after.len() > limits::KEYWORDS_PER_EMAIL_MAX {
        return Ok(One::Refused);
    }
    let deleted = match (request.change, request.deleted) {
        (KeywordChange::Replace, deleted) => deleted.is_some(),
        (KeywordChange::Add, Some(Deleted)) => true,
        (KeywordChange::Remove, Some(Deleted)) => false,
        (_, None) => state.memberships[place].deleted,
    };
    if let Some(ModSeq(since)) = request.unchanged_since
        && unit.modseq_before(target.email) > since
    {
        return Ok(One::Modified);
    }
    let Some(state) = unit.email(target.email).await? else { return Ok(One::Gone) };
    state.keywords = after.to_record();
    state.memberships[place].deleted = deleted;
    Ok(One::Stored)
}

fn to_record(outcome: &StoreOutcome) -> Outcome {
    let row = |uid: &Uid| OutcomeRow { from_uid: uid.number(), ..OutcomeRow::default() };
    let refused = outcome.refused.iter().map(|uid| OutcomeRow { to_uid: 1, ..row(uid) });
    Outcome {
        rows: outcome.stored.iter().map(row).chain(refused).collect(),
        refused: outcome.modified.iter().map(|uid| uid.number()).collect(),
        gone: outcome.gone.iter().map(|uid| uid.number()).collect(),
        number: 0,
    }
}

fn from_record(outcome: &Outcome) -> StoreOutcome {
    let rows = |refused: u32| {
        outcome.rows.iter().filter(move |row| row.to_uid == refused).map(|row| row.from_uid)
    };
    let uids = |numbers: &mut dyn Iterator<Item = u32>| numbers.filter_map(Uid::new).collect();
    StoreOutcome {
        stored: uids(&mut rows(0)),
        refused: uids(&mut rows(1)),
        modified: uids(&mut outcome.refused.iter().copied()),
        gone: uids(&mut outcome.gone.iter().copied()),
    }
}
