//! A turn's end: what becomes of what is due and did not leave.

use std::collections::BTreeSet;

use cluster::work::{Done, PutOff, Turn, zone};
use env::Timestamp;
use mail::keys::encode_over;

use super::{Lane, Reach};
use crate::{
    hex::hex,
    limits,
    outbound::{
        attempt::Verdict,
        conclude::{self, ReadError, Task, Unreported, Waits, of_trouble},
        domain::DomainTrouble,
        orders,
        schedule::later,
        term::Term,
    },
};

impl Lane<'_> {
    /// The turn's end: what is due of a domain that is down waits for it from now on, and the domain
    /// comes again when it is to be tried; one that has sent all that waited for it is in no trouble
    /// any more.
    pub(super) async fn settle(&self, turn: &Turn) {
        let (reach, trouble, is_held, has_orders) = {
            let state = self.state();
            (state.reach, state.trouble.clone(), state.is_held, state.has_orders)
        };
        let settled = match (reach, &trouble) {
            // What is due stays so, until the orders are obeyed.
            _ if has_orders => Ok(None),
            _ if is_held => orders::hold_due(self, turn).await.map(|()| None),
            (Reach::Down, Some(trouble)) => {
                self.put_off_due(turn, trouble).await.map(|()| Some(trouble.retry_at()))
            }
            (_, Some(_)) => self.recover(reach).await,
            _ => Ok(None),
        };
        let settled = match settled {
            Ok(again) if trouble.is_some() => self.forget_trouble().await.map(|()| again),
            settled => settled,
        };
        let soon = later(self.parts.env.wall(), limits::PUT_OFF_MIN);
        match settled {
            Ok(again) => turn.come_again(again.map(|at| at.max(soon))),
            Err(error) => {
                tracing::warn!(
                    domain = self.held.zone,
                    error,
                    "a domain's messages are not put off"
                );
            }
        }
    }

    /// With its last message gone nobody has to know about a domain: there may never be another.
    async fn forget_trouble(&self) -> Result<(), String> {
        if self.first_items().await?.is_empty() {
            self.note(None).await;
        }
        Ok(())
    }

    async fn put_off_due(&self, turn: &Turn, trouble: &DomainTrouble) -> Result<(), String> {
        let env = &self.parts.env;
        while turn.goes_on() {
            let mut due =
                self.read_due(&BTreeSet::new()).await.map_err(|error| error.to_string())?;
            if trouble.is_of_tls {
                // They have come meanwhile, and leave with the next turn.
                due.retain(|item| !conclude::is_tls_optional(item));
            }
            if due.is_empty() {
                return Ok(());
            }
            let now = env.wall();
            let mut together = Vec::new();
            for item in due {
                let mut message = match conclude::decode(&item) {
                    Ok(message) => message,
                    Err(reason) => {
                        together.push(self.set_aside(item, &reason));
                        continue;
                    }
                };
                let term = Term::of(&self.parts.schedule, &message);
                let is_late = term.late <= now && !message.is_late_told;
                // What is owed to a sender waits for no domain.
                let tells = is_late || term.end <= now || !message.owed.is_empty();
                if message.received_ms == 0 || tells {
                    let task = match Task::read(self.parts, self.held, &item).await {
                        Ok(Some(task)) => task,
                        Ok(None) => {
                            turn.note(&item, async { Ok(Done::Finished) }).await;
                            continue;
                        }
                        Err(ReadError::Damaged(reason)) => {
                            together.push(self.set_aside(item, &reason));
                            continue;
                        }
                        Err(error) => return Err(error.to_string()),
                    };
                    let verdict = Verdict::Deferred(of_trouble(trouble));
                    let verdicts = vec![verdict; task.item.recipients.len()];
                    let (parts, held, waits) = (self.parts, self.held, Waits::ForDomain);
                    let unreported = Unreported::Waits;
                    conclude::conclude(parts, held, &item, task, verdicts, waits, unreported)
                        .await?;
                    continue;
                }
                message.waits_for_domain = true;
                let due = term.turning(&message, now).max(later(now, limits::PUT_OFF_MIN));
                let payload = encode_over(&message, &item.payload);
                together.push(PutOff { item, due, payload });
            }
            turn.put_off(&together).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// When an item comes again that cannot be read: in a long time, so that it does not keep its
    /// zone busy.
    pub(in crate::outbound) fn set_aside(&self, item: zone::Item, reason: &str) -> PutOff {
        let id = hex(&item.id);
        let domain = &self.held.zone;
        tracing::error!(id, domain, reason, "an item of the queue is put off: it cannot be read");
        let due = later(self.parts.env.wall(), limits::DAMAGED_PUT_OFF);
        PutOff { due, payload: item.payload.to_vec(), item }
    }

    /// Nothing waits any more for the domain, which was in trouble; or something does, and is to be
    /// sent soon. When the domain is to come again.
    async fn recover(&self, reach: Reach) -> Result<Option<Timestamp>, String> {
        let waiting = self.read_due(&BTreeSet::new()).await.map_err(|error| error.to_string())?;
        let is_undisturbed = {
            let state = self.state();
            !state.is_held && !state.has_orders
        };
        if waiting.is_empty() && is_undisturbed && reach == Reach::Reached {
            self.note(None).await;
        }
        Ok((!waiting.is_empty()).then(|| self.parts.env.wall()))
    }
}
