//! P5, for bytes that are not what was put: no client ever read such, every one of them is told by name
//! (`fsck --bytes`, the blob crate's audit, whoever asks for it over IMAP), and no sound one is.
//!
//! At its end what has rotted is mended, so that whatever looks at bytes after it finds them sound.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use blob::{
    BlobId, BlobName, Owner,
    audit::{Audit, Depth, Finding},
    references,
    sweep::SCAN_INTERVAL,
};
use env::{BoxFuture, Monotonic};
use kv::Transaction;
use mail::{AccountId, StoreError, keys};
use node::admin::fsck::{Checker, Line, Request};
use tokio::sync::mpsc;

use super::p5::needed;
use crate::{
    Check, Door, Fact, PASSWORD, Property, Violation, What, World,
    clients::imap::{Imap, Untagged, quoted},
    faults::BUCKET_NOISE,
};

/// Rotten messages that clients ask for at the end.
const ASKED_FOR_MAX: usize = 6;

pub(super) struct Rot;

impl Check for Rot {
    fn name(&self) -> &'static str {
        "rot"
    }

    fn property(&self) -> Property {
        Property::P5
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            let mut violations = world.facts().with(judge);
            let rotten = world.bucket().rotten();
            let told = async {
                let (by_fsck, by_audit) = (told_by_fsck(world).await?, told_by_audit(world).await?);
                let needed = needed(world).await?;
                let owed: BTreeSet<BlobName> = rotten.intersection(&needed).copied().collect();
                Ok::<_, String>((owed, [("fsck", by_fsck), ("the audit", by_audit)]))
            };
            match told.await {
                Ok((owed, by)) => {
                    for (who, told) in by {
                        violations.extend(compare(who, &told, &rotten, &owed));
                    }
                    if !owed.is_empty() {
                        env::sometimes!("a blob that has rotted for good is told by name");
                    }
                    violations.extend(ask_for(world, &owed).await);
                }
                Err(error) => violations.push(Violation::new(Property::World, error)),
            }
            for blob in rotten {
                // A sweeper may have removed it meanwhile.
                let _kept = world.bucket().mend(blob);
            }
            violations
        })
    }
}

/// What was told in the run: nobody read wrong bytes, and nobody was told of damage without any.
fn judge(facts: &[Fact]) -> Vec<Violation> {
    let mut rotten: BTreeSet<BlobName> = BTreeSet::new();
    let mut violations = Vec::new();
    for fact in facts {
        let violation = |what| Some(Violation::at(Property::P5, fact.at, what));
        violations.extend(match &fact.what {
            What::Rotted { blob } => {
                rotten.insert(*blob);
                None
            }
            What::WrongBytes { recipient, what } => violation(format!("{recipient} reads {what}")),
            What::ToldDamaged { blob: Some(blob), .. } if rotten.contains(blob) => None,
            What::ToldDamaged { recipient, blob, asked } => {
                let damaged = format!("{recipient} was told that {blob:?}, which is sound, is not");
                Some(damaged).filter(|_| !is_noisy(facts, *asked, fact.at)).and_then(violation)
            }
            _ => None,
        });
    }
    violations
}

/// Whether between the two what was read may not have been what was kept.
fn is_noisy(facts: &[Fact], from: Monotonic, to: Monotonic) -> bool {
    let mut began: BTreeMap<&str, Monotonic> = BTreeMap::new();
    for fact in facts.iter().filter(|fact| fact.at <= to) {
        let What::Fault(text) = &fact.what else { continue };
        if !text.starts_with(BUCKET_NOISE) {
            continue;
        }
        if let Some(episode) = text.strip_suffix(": begins") {
            began.insert(episode, fact.at);
        } else if let Some(episode) = text.strip_suffix(": ends")
            && fact.at < from
        {
            began.remove(episode);
        }
    }
    !began.is_empty()
}

fn compare(
    who: &str,
    told: &BTreeSet<BlobName>,
    rotten: &BTreeSet<BlobName>,
    owed: &BTreeSet<BlobName>,
) -> Vec<Violation> {
    let violation = |what: String| Violation::new(Property::P5, what);
    let untold = owed.difference(told);
    let untold = untold.map(|blob| violation(format!("{who} does not tell of {blob}: it rotted")));
    let sound = told.difference(rotten);
    let sound = sound.map(|blob| violation(format!("{who} tells of {blob}, which is sound")));
    untold.chain(sound).collect()
}

/// The blobs that `fsck --bytes` calls damaged.
async fn told_by_fsck(world: &World) -> Result<BTreeSet<BlobName>, String> {
    let request = Request { bytes: true, ..Request::default() };
    let check = Checker::new(world.blobs()).begin(&world.admin(), &request).await;
    let check = check.map_err(|error| error.to_string())?;
    let (sender, mut lines) = mpsc::channel(64);
    let running = world.env().spawn("fsck", async move { check.run(&sender).await });
    let mut told = BTreeSet::new();
    while let Some(line) = lines.recv().await {
        match line {
            Line::Finding(finding) if finding.code == "blob_damaged" => {
                told.insert(named(&finding.detail).ok_or(finding.detail)?);
            }
            Line::Stopped { reason } => return Err(format!("fsck --bytes stopped: {reason}")),
            _ => {}
        }
    }
    // Its panic is told by the world.
    let _ended = running.await;
    Ok(told)
}

/// The blob in fsck's words: `blob <object>-<hash> of …`.
fn named(detail: &str) -> Option<BlobName> {
    let object = detail.strip_prefix("blob ")?.get(..32)?;
    BlobName::from_slice(&u128::from_str_radix(object, 16).ok()?.to_be_bytes())
}

/// The blobs that the audit calls damaged.
async fn told_by_audit(world: &World) -> Result<BTreeSet<BlobName>, String> {
    let (env, db, blobs) = (world.env(), world.db(), world.blobs());
    let mut audit = Audit::new(env, db, blobs, Depth::Bytes, SCAN_INTERVAL);
    let mut told = BTreeSet::new();
    while let Some(step) = audit.next_step().await.map_err(|error| error.to_string())? {
        for finding in step.findings {
            if let Finding::Damaged { id } = finding {
                told.insert(BlobName::of(&id));
            }
        }
    }
    Ok(told)
}

/// A message in an INBOX.
struct Rotten {
    address: String,
    uid: u32,
}

/// Clients ask for what has rotted, and have to be told so.
async fn ask_for(world: &World, rotten: &BTreeSet<BlobName>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let messages = match in_inboxes(world, rotten).await {
        Ok(messages) => messages,
        Err(error) => return vec![Violation::new(Property::World, error)],
    };
    for (number, message) in messages.iter().take(ASKED_FOR_MAX).enumerate() {
        let Rotten { address, uid } = message;
        let doors = world.doors(Door::Imaps);
        let door = doors[number % doors.len()];
        let answered = async {
            let mut imap = Imap::connect(world, &world.client("check-rot"), door).await?;
            imap.command(&format!("LOGIN {} {}", quoted(address), quoted(PASSWORD))).await?;
            imap.command("EXAMINE INBOX").await?;
            let answer = imap.command(&format!("UID FETCH {uid} (BODY.PEEK[])")).await;
            let is_told =
                |told: &Untagged| matches!(told, Untagged::Fetch(it) if it.body.is_some());
            Ok::<_, io::Error>(answer.map(|answer| {
                (answer.untagged.iter().any(is_told), answer.code("CORRUPTION").is_some())
            }))
        };
        let what = match answered.await {
            Ok(Ok((false, true))) => continue,
            // Found in the middle of it: the connection ends, so that nobody keeps it.
            Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => continue,
            Ok(Ok((true, _))) => "is told the bytes of".to_owned(),
            Ok(Ok((false, false))) => "is not told that it is damaged:".to_owned(),
            Ok(Err(error)) | Err(error) => format!("{error}, asking for"),
        };
        let what = format!("{address} {what} UID {uid} of INBOX, which has rotted");
        violations.push(Violation::new(Property::P5, what));
    }
    violations
}

/// The messages in INBOXes whose bytes these are.
async fn in_inboxes(world: &World, blobs: &BTreeSet<BlobName>) -> Result<Vec<Rotten>, String> {
    let mut messages = Vec::new();
    for (blob, owner) in owners(world, blobs).await? {
        let Owner::Email(account, email) = owner else { continue };
        let (account, email) = (AccountId(account), mail::EmailId(email));
        let read = async |tx: Transaction| {
            let record = tx.get(&keys::account::key(account)).await?;
            let state = tx.get(&keys::email::state_key(account, email)).await?;
            let inbox = mail::inbox(&tx, account).await?;
            Ok::<_, StoreError>((record, state, inbox))
        };
        let read = world.db().run(read).await.map_err(|error| error.to_string())?;
        let (Some(record), Some(state), Some(inbox)) = read else { continue };
        let record: keys::account::Account =
            prost::Message::decode(&record[..]).map_err(|error| format!("{blob}: {error}"))?;
        let (_, state) = keys::email::decode_state(&state).map_err(|error| error.to_string())?;
        let place = state.memberships.iter().find(|place| place.mailbox == inbox.0);
        messages.extend(place.map(|place| Rotten { address: record.name.clone(), uid: place.uid }));
    }
    Ok(messages)
}

/// Who needs these blobs.
async fn owners(world: &World, blobs: &BTreeSet<BlobName>) -> Result<Vec<(BlobId, Owner)>, String> {
    let (begin, end) = references::range();
    let query = &kv::RangeQuery::new(begin, end);
    let read = |tx: Transaction| async move { tx.range(query.clone()).collect().await };
    let rows: Result<_, kv::Error> = world.db().run(read).await;
    let rows = rows.map_err(|error| error.to_string())?;
    let all = rows.iter().filter_map(|row| references::parse(&row.key));
    Ok(all.filter(|(blob, _)| blobs.contains(&BlobName::of(blob))).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    fn fact(seconds: u64, what: What) -> Fact {
        Fact { at: at(seconds), host: "reader".into(), what }
    }

    fn blob(byte: u8) -> BlobName {
        BlobName::from_slice(&[byte; 16]).expect("so long are names")
    }

    fn told(seconds: u64, byte: u8) -> Fact {
        let (recipient, blob, asked) = ("keeper".to_owned(), Some(blob(byte)), at(seconds - 1));
        fact(seconds, What::ToldDamaged { recipient, blob, asked })
    }

    #[test]
    fn damage_is_told_of_what_has_rotted_or_came_over_a_noisy_way_alone() {
        let noise = |seconds, which: &str| {
            fact(seconds, What::Fault(format!("{BUCKET_NOISE} for node-1, 5s: {which}")))
        };
        let rotted = fact(10, What::Rotted { blob: blob(1) });
        assert_eq!(judge(&[rotted.clone(), told(11, 1)]), []);
        assert_eq!(judge(&[told(9, 1), rotted.clone()]).len(), 1);
        assert_eq!(judge(&[rotted, told(11, 2)]).len(), 1);
        let noisy = [noise(20, "begins"), told(22, 2), noise(25, "ends"), told(26, 2)];
        assert_eq!(judge(&noisy), [], "asked for while it was noisy");
        let quiet = [noise(20, "begins"), noise(25, "ends"), told(27, 2)];
        assert_eq!(judge(&quiet).len(), 1);
    }

    #[test]
    fn what_is_not_told_and_what_is_sound_is_found() {
        let set = |bytes: &[u8]| bytes.iter().map(|byte| blob(*byte)).collect::<BTreeSet<_>>();
        assert_eq!(compare("fsck", &set(&[1]), &set(&[1, 2]), &set(&[1])), []);
        assert_eq!(compare("fsck", &set(&[]), &set(&[1]), &set(&[1])).len(), 1);
        assert_eq!(compare("fsck", &set(&[3]), &set(&[1]), &set(&[])).len(), 1);
    }

    #[test]
    fn a_blob_is_read_from_the_words_of_a_finding() {
        let name = blob(0xab);
        assert_eq!(named(&format!("blob {name}-00ff of email 1 is damaged")), Some(name));
        assert_eq!(named("something else"), None);
    }
}
