//! Looks after one domain's keys at a time, by whichever node has claimed its share.
//!
//! A turn reads the keys, does what [`super::lifecycle`] says is due, each step once, and writes all that came
//! of it in the transaction that puts the item off. Where somebody has changed the keys meanwhile nothing
//! is written, and the turn runs again: making a key, adding a record and asking DNS may be done twice.

use std::{io::Read, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use cluster::{
    ClusterError,
    dkim::{self, Algorithm, Found, Key, State},
    work::{Completion, Done, Held, Kind, Worker, zone::Item},
};
use dns::{LookupError, Resolver, Updater};
use env::{BoxFuture, Env};
use kv::{Database, Transaction};
use mail::directory;
use origin::{KeyError, SigningKey};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{
    Counts,
    lifecycle::{self, Policy, Publisher, Step},
};
use crate::{date, limits, services::Services, settings, upkeep};

/// The worker.
pub(crate) struct Rotation {
    env: Env,
    db: Database,
    resolver: Resolver,
    settings: watch::Receiver<std::sync::Arc<settings::Settings>>,
    counts: Counts,
}

impl Rotation {
    pub(crate) fn new(services: &Services) -> Self {
        Self {
            env: services.env.clone(),
            db: upkeep::background(services),
            resolver: services.resolver.clone(),
            settings: services.settings.subscribe(),
            counts: services.signing.counts().clone(),
        }
    }

    async fn turn(&self, held: &Held, item: &Item) -> Result<Done, String> {
        let domain = std::str::from_utf8(&item.id).map_err(|_| "not a domain".to_owned())?;
        let payload = &item.payload;
        let read = |tx: Transaction| async move {
            let stands = directory::is_local(&tx, domain).await?;
            let counts = stands && dkim::counts(&tx, domain, payload).await?;
            let keys = if counts { dkim::keys(&tx, domain).await? } else { Vec::new() };
            Ok::<_, mail::StoreError>(counts.then_some(keys))
        };
        let Some(before) = self.db.run(read).await.map_err(|error| error.to_string())? else {
            return Ok(Done::Finished);
        };
        let settings = self.settings.borrow().signing.clone();
        let policy = policy(&settings, domain);
        let mut keys = before.clone();
        let mut done = Vec::new();
        while done.len() < limits::DKIM_STEPS_MAX
            && let Some(step) = lifecycle::next_step(&keys, &policy, self.env.wall(), &done)
        {
            self.take(step, domain, &settings, &mut keys).await?;
            done.push(step);
        }
        let due = lifecycle::next_turn(&keys, &policy, self.env.wall());
        let (before, keys) = (&before, &keys);
        let write = |tx: Transaction| async move {
            let stands = dkim::counts(&tx, domain, payload).await?;
            if !stands || dkim::keys(&tx, domain).await? != *before {
                return Ok(Written::Changed);
            }
            if held.put_off(&tx, item, due, payload).await? == Completion::Gone {
                return Ok(Written::Ours);
            }
            dkim::write(&tx, domain, before, keys).await?;
            Ok::<_, ClusterError>(Written::Ours)
        };
        let written = self.db.run_versioned(write).await.map_err(|error| error.to_string())?;
        match written.value {
            Written::Ours => {
                held.completed(written.versionstamp);
                Ok(Done::Completed)
            }
            Written::Changed => Ok(Done::Again { due: self.env.wall(), payload: payload.to_vec() }),
        }
    }

    /// Does a step.
    async fn take(
        &self,
        step: Step,
        domain: &str,
        settings: &settings::Signing,
        keys: &mut Vec<Key>,
    ) -> Result<(), String> {
        let now = self.env.wall();
        if let Step::Make(algorithm) = step {
            let key = make(&self.env, keys, algorithm).await.map_err(|error| error.to_string())?;
            tracing::info!(domain, selector = key.selector, "a key is made");
            keys.push(key);
            return Ok(());
        }
        let (Step::Publish(number)
        | Step::Look(number)
        | Step::Use(number)
        | Step::Retire(number)
        | Step::Withdraw(number)
        | Step::Remove(number)) = step
        else {
            return Ok(());
        };
        if step == Step::Use(number) {
            lifecycle::put_to_use(keys, number, now);
            tracing::info!(domain, number, "a key signs from now on");
            return Ok(());
        }
        if step == Step::Remove(number) {
            keys.retain(|key| key.number != number);
            return Ok(());
        }
        let Some(key) = keys.iter_mut().find(|key| key.number == number) else { return Ok(()) };
        match step {
            Step::Look(_) => self.look(key, domain).await,
            Step::Retire(_) => lifecycle::retire(key, now),
            Step::Publish(_) => {
                let outcome = self.update(settings, domain, key, step).await;
                tell(domain, key, "published", &outcome);
                lifecycle::published(key, outcome, self.env.wall());
            }
            Step::Withdraw(_) => {
                let outcome = self.update(settings, domain, key, step).await;
                tell(domain, key, "withdrawn", &outcome);
                lifecycle::withdrawn(key, outcome);
            }
            Step::Make(_) | Step::Use(_) | Step::Remove(_) => {}
        }
        Ok(())
    }

    async fn look(&self, key: &mut Key, domain: &str) {
        let found = look_up(&self.resolver, key, domain).await;
        self.counts.found(found);
        if key.state == State::InUse && matches!(found, Found::Missing | Found::Other) {
            tracing::warn!(
                domain,
                selector = key.selector,
                "DNS has no record of a key that signs"
            );
        }
        lifecycle::looked(key, found, self.env.wall());
    }

    async fn update(
        &self,
        settings: &settings::Signing,
        domain: &str,
        key: &Key,
        step: Step,
    ) -> Result<(), String> {
        let (Some(server), Some(zone)) = (settings.update_server, settings.zone_of(domain)) else {
            return Err("no name server takes the domain's records".to_owned());
        };
        let (Some(key_name), Some(file)) = (&settings.update_key, &settings.update_secret_file)
        else {
            return Err("dkim.update_key and dkim.update_secret_file are not set".to_owned());
        };
        let secret = secret(&self.env, file.clone()).await?;
        let updater = Updater::new(&self.env, server, key_name, secret.to_vec())
            .map_err(|error| error.to_string())?;
        let (name, text) = (key.record_name(domain), key.text.as_bytes());
        let updated = match step {
            Step::Withdraw(_) => updater.remove_txt(&zone, &name, text).await,
            _ => updater.add_txt(&zone, &name, limits::DKIM_RECORD_TTL, text).await,
        };
        updated.map_err(|error| error.to_string())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Ours,
    /// Somebody else has changed the keys.
    Changed,
}

impl Worker for Rotation {
    fn kind(&self) -> Kind {
        Kind::DkimRotation
    }

    fn zones_at_once(&self) -> usize {
        1
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(self.turn(held, item))
    }
}

/// What the settings say of a domain.
fn policy(settings: &settings::Signing, domain: &str) -> Policy {
    let days = |days| std::time::Duration::from_hours(24 * days);
    let is_published = settings.zone_of(domain).is_some();
    Policy {
        algorithms: settings.algorithms.each(),
        // Where a person publishes, a key that nobody asked for waits for ever: unless it is wanted so.
        rotate: settings
            .rotate_after()
            .filter(|_| is_published || settings.rotate != settings::Rotate::Auto),
        settle: std::time::Duration::from_secs(settings.settle_seconds),
        retire: days(settings.retire_days),
        publisher: if is_published { Publisher::Server } else { Publisher::Person },
    }
}

/// Makes a key that the domain does not have yet.
pub(crate) async fn make(env: &Env, keys: &[Key], algorithm: Algorithm) -> Result<Key, KeyError> {
    let (key, prefix) = match algorithm {
        Algorithm::Rsa => (SigningKey::generate_rsa(env).await?, "rsa"),
        Algorithm::Ed25519 => (SigningKey::generate_ed25519(env), "ed"),
    };
    let now = env.wall();
    let number = keys.iter().map(|key| key.number).max().map_or(1, |number| number + 1);
    // By the day, for people; by chance, so that a domain that comes back has no name twice.
    let (year, month, day) = date::civil(now.unix_seconds().div_euclid(86_400));
    let chance = u16::from_le_bytes(env.random_array());
    let selector = format!("{prefix}-{year}{month:02}{day:02}-{chance:04x}");
    Ok(Key::new(number, selector, algorithm, key.to_pkcs8(), key.record(), now))
}

/// Asks DNS for a key's record.
pub(crate) async fn look_up(resolver: &Resolver, key: &Key, domain: &str) -> Found {
    match resolver.txt_anew(&key.record_name(domain)).await {
        Ok(answer) => lifecycle::found_in(key, &answer.records),
        Err(LookupError::NoName { .. } | LookupError::NoRecords { .. }) => Found::Missing,
        Err(_) => Found::Unasked,
    }
}

fn tell(domain: &str, key: &Key, what: &str, outcome: &Result<(), String>) {
    match outcome {
        Ok(()) => tracing::info!(domain, selector = key.selector, "a key's record is {what}"),
        Err(reason) => {
            tracing::warn!(domain, selector = key.selector, reason, "a key's record is not {what}");
        }
    }
}

/// The secret of the TSIG key, in base64 in a file.
async fn secret(env: &Env, path: PathBuf) -> Result<Zeroizing<Vec<u8>>, String> {
    let shown = path.display().to_string();
    let read = move || {
        let mut text = Zeroizing::new(String::new());
        let file = std::fs::File::open(&path)?;
        file.take(limits::TSIG_SECRET_BYTES_MAX).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = env.run_blocking(read).await.map_err(|_| "the node is stopping".to_owned())?;
    let text = text.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let secret = STANDARD.decode(text.trim_ascii());
    secret.map(Zeroizing::new).map_err(|_| format!("{shown} is not base64"))
}
