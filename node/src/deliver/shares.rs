//! A message for any number of accounts, in transactions of bounded size.
//!
//! Failures are reported in a transaction in which somebody is served. So a share in which nobody is waits
//! until somebody is, and comes again then beside that one's append, which is a no-op by its operation.

use std::collections::VecDeque;

use mail::Appended;

use super::{Append, DeliverError, Deliverer, OnFailure, Refusal, Request, outbound::Submission};
use crate::limits;

/// What is still to be done of a message.
pub(crate) struct Shares {
    waiting: VecDeque<Vec<Append>>,
    /// Those in which nobody was served.
    postponed: Vec<Vec<Append>>,
    outbound: Option<Submission>,
    on_failure: OnFailure,
    /// The first append that was done, which has told what it had to tell.
    done: Option<Append>,
}

/// What came of one transaction.
pub(crate) struct Share {
    pub(crate) appends: Vec<Append>,
    /// Whether what goes to other servers went with it.
    pub(crate) has_outbound: bool,
    /// One result for each of the appends.
    pub(crate) results: Result<Vec<Result<Appended, Refusal>>, DeliverError>,
}

impl Shares {
    pub(crate) fn new(
        appends: &[Append],
        outbound: Option<Submission>,
        on_failure: OnFailure,
    ) -> Self {
        // One place is left for the append that is carried along.
        let chunks = appends.chunks(limits::APPENDS_PER_TRANSACTION_MAX - 1);
        let mut waiting: VecDeque<Vec<Append>> = chunks.map(<[Append]>::to_vec).collect();
        if waiting.is_empty() {
            // Everybody is elsewhere.
            waiting.push_back(Vec::new());
        }
        Self { waiting, postponed: Vec::new(), outbound, on_failure, done: None }
    }

    /// Carries the next one out; `None` after the last. One that fails is not tried again.
    pub(crate) async fn next(&mut self, deliverer: &Deliverer) -> Option<Share> {
        let appends = self.waiting.pop_front()?;
        let outbound = self.outbound.take();
        let has_outbound = outbound.is_some();
        let carried = self.done.iter().len();
        let request = Request {
            appends: self.done.iter().chain(&appends).cloned().collect(),
            outbound,
            on_failure: self.on_failure.clone(),
        };
        let delivered = match deliverer.submit(request).await {
            Ok(delivered) => delivered,
            Err(error) => return Some(Share { appends, has_outbound, results: Err(error) }),
        };
        let results: Vec<_> = delivered.appends.into_iter().skip(carried).collect();
        let first = appends.iter().zip(&results).find(|(_, result)| result.is_ok());
        if let (None, Some((append, _))) = (&self.done, first) {
            let (recipients, tell_success) = (Vec::new(), Vec::new());
            self.done = Some(Append { recipients, tell_success, ..append.clone() });
        }
        if has_outbound || self.done.is_some() {
            self.waiting.extend(self.postponed.drain(..));
        } else {
            self.postponed.push(appends.clone());
        }
        Some(Share { appends, has_outbound, results: Ok(results) })
    }

    /// Whether somebody is left whose failure nobody was told.
    pub(crate) fn are_any_postponed(&self) -> bool {
        !self.postponed.is_empty()
    }
}
