//! A model of an S3 service, for simulations: what a bucket does to those who use it.
//!
//! It stands where the requests leave the process: everything above (parts, windows, checks,
//! tries, time limits) is the code that talks to a real service. All nodes of a simulated world
//! share one [`Bucket`]; each reaches it through a [`BucketLink`] with faults of its own, whose
//! chance and time come from the node's [`Env`].
//!
//! Invariants:
//! - A put that was acknowledged is read and listed from then on, as S3 promises; a removal may stay
//!   unseen for a while.
//! - Order follows ordered maps alone.
//!
//! Deliberately absent: signatures, conditions, versions, and pages that change while they are
//! listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use env::{Env, Monotonic};

use super::{
    client::{Failed, Reply},
    object_of,
    sign::Ask,
};
use crate::{
    BlobName,
    store::{to_u64, to_usize},
};

/// Whether the service can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BucketReach {
    /// It can.
    #[default]
    Connected,
    /// Requests get no answer, and nothing is done.
    CutOff,
    /// Requests are done, and their answers do not come back.
    RepliesLost,
    /// Every request is asked to come again (503), and nothing is done.
    Refusing,
}

/// What the service does to one of its users, each so many times in a million requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketFaults {
    /// Whether it can be reached at all.
    pub reach: BucketReach,
    /// It is asked to come again (503), and nothing was done.
    pub refused: u32,
    /// The connection breaks, and nothing was done.
    pub broken: u32,
    /// The connection breaks after everything was done.
    pub reply_lost: u32,
    /// There is no answer at all, and nothing was done.
    pub stalled: u32,
    /// One bit of what is read is not what was put. What is kept stays right.
    pub rotten: u32,
    /// An answer takes at least this long.
    pub delay_min: Duration,
    /// And at most this long.
    pub delay_max: Duration,
    /// A removed object may be seen for this long.
    pub removal_unseen_max: Duration,
}

impl Default for BucketFaults {
    /// A service in good health: some milliseconds for each request.
    fn default() -> Self {
        Self {
            reach: BucketReach::Connected,
            refused: 0,
            broken: 0,
            reply_lost: 0,
            stalled: 0,
            rotten: 0,
            delay_min: Duration::from_millis(2),
            delay_max: Duration::from_millis(15),
            removal_unseen_max: Duration::ZERO,
        }
    }
}

/// What a bucket holds. Clones are the same bucket.
#[derive(Clone)]
pub struct Bucket {
    env: Env,
    contents: Arc<Mutex<Contents>>,
}

#[derive(Default)]
struct Contents {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    next_upload: u64,
}

struct Object {
    bytes: Bytes,
    /// What was put, where that is no longer what is kept.
    sound: Option<Bytes>,
    /// Once it is removed: when nobody sees it any more.
    gone_at: Option<Monotonic>,
}

struct Upload {
    key: String,
    parts: BTreeMap<u32, Bytes>,
}

/// One user's way to a bucket.
#[derive(Clone)]
pub struct BucketLink {
    bucket: Bucket,
    faults: Arc<Mutex<BucketFaults>>,
}

impl std::fmt::Debug for BucketLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BucketLink")
    }
}

impl Bucket {
    /// An empty bucket, whose time is that of `env`.
    pub fn new(env: Env) -> Self {
        Self { env, contents: Arc::default() }
    }

    /// A way to it, on which nothing goes wrong yet.
    pub fn link(&self) -> BucketLink {
        BucketLink { bucket: self.clone(), faults: Arc::default() }
    }

    /// How many objects it holds that are not removed.
    pub fn objects(&self) -> usize {
        self.lock().objects.values().filter(|object| object.gone_at.is_none()).count()
    }

    /// Changes one bit of a blob that it keeps, for good: the `nth` of those that are sound, counted
    /// in a circle, at the byte `at`, counted likewise. Tells which; none where it keeps none.
    pub fn rot(&self, nth: usize, at: usize) -> Option<BlobName> {
        let mut contents = self.lock();
        let sound = |(key, object): (&String, &Object)| {
            let kept = object.gone_at.is_none() && object.sound.is_none();
            Some((key.clone(), object_of(key)?)).filter(|_| kept && !object.bytes.is_empty())
        };
        let sound: Vec<_> = contents.objects.iter().filter_map(sound).collect();
        let (key, name) = sound.get(nth.checked_rem(sound.len())?)?;
        let object = contents.objects.get_mut(key)?;
        let rotten = flipped(&object.bytes, at);
        object.sound = Some(std::mem::replace(&mut object.bytes, rotten));
        Some(BlobName::Object(*name))
    }

    /// Puts back what a blob that has rotted was; whether it is kept, and had rotted.
    pub fn mend(&self, name: BlobName) -> bool {
        let mut contents = self.lock();
        let BlobName::Object(object) = name else { return false };
        let object = contents.objects.get_mut(&object.to_string());
        let Some((object, sound)) = object.and_then(|it| it.sound.take().map(|was| (it, was)))
        else {
            return false;
        };
        object.bytes = sound;
        true
    }

    /// The blobs that have rotted and are kept, removed or not.
    pub fn rotten(&self) -> BTreeSet<BlobName> {
        let contents = self.lock();
        let rotten = contents.objects.iter().filter(|(_, object)| object.sound.is_some());
        rotten.filter_map(|(key, _)| Some(BlobName::Object(object_of(key)?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("nothing panics while it holds a bucket")
    }
}

impl BucketLink {
    /// Changes what goes wrong, from the next request on.
    pub fn update(&self, change: impl FnOnce(&mut BucketFaults)) {
        change(&mut self.faults.lock().expect("nothing panics while it holds the faults"));
    }

    /// What goes wrong.
    pub fn faults(&self) -> BucketFaults {
        *self.faults.lock().expect("nothing panics while it holds the faults")
    }

    /// Does what is asked and answers, or not.
    pub(super) async fn answer(
        &self,
        env: &Env,
        path: &str,
        ask: &Ask,
        body: Bytes,
        body_max: usize,
    ) -> Result<Reply, Failed> {
        let faults = self.faults();
        let happens =
            |per_million| per_million > 0 && env.random_below(1_000_000) < u64::from(per_million);
        let broken = || Failed("the connection broke".to_owned());
        let spread = faults.delay_max.saturating_sub(faults.delay_min);
        let jitter = env.random_below(u64::try_from(spread.as_micros()).unwrap_or(u64::MAX));
        // Half on the way there: a caller that stops waiting may or may not have been in time.
        let delay = faults.delay_min + Duration::from_micros(jitter);
        env.sleep(delay / 2).await;
        if faults.reach == BucketReach::CutOff || happens(faults.stalled) {
            std::future::pending::<()>().await;
        }
        if faults.reach == BucketReach::Refusing {
            return Ok(refusal(503, "SlowDown"));
        }
        if happens(faults.broken) {
            return Err(broken());
        }
        if happens(faults.refused) {
            return Ok(refusal(503, "SlowDown"));
        }
        let unseen = u64::try_from(faults.removal_unseen_max.as_micros()).unwrap_or(u64::MAX);
        let unseen = Duration::from_micros(env.random_below(unseen));
        let now = self.bucket.env.monotonic();
        let mut reply = self.bucket.lock().done(path, ask, body, now, unseen);
        env.sleep(delay / 2).await;
        if matches!(self.faults().reach, BucketReach::CutOff | BucketReach::RepliesLost) {
            std::future::pending::<()>().await;
        }
        if happens(faults.reply_lost) {
            return Err(broken());
        }
        if matches!(ask, Ask::Get { .. }) && !reply.body.is_empty() && happens(faults.rotten) {
            let at = usize::try_from(env.random_below(to_u64(reply.body.len()))).unwrap_or(0);
            reply.body = flipped(&reply.body, at);
        }
        if reply.status < 300 && reply.body.len() > body_max {
            return Err(Failed("the answer is longer than what was asked for".to_owned()));
        }
        Ok(reply)
    }
}

impl Contents {
    fn done(
        &mut self,
        path: &str,
        ask: &Ask,
        body: Bytes,
        now: Monotonic,
        unseen: Duration,
    ) -> Reply {
        self.objects.retain(|_, object| object.gone_at.is_none_or(|gone| gone > now));
        let key = path.to_owned();
        match ask {
            Ask::Put => {
                self.objects.insert(key, Object { bytes: body, sound: None, gone_at: None });
                Reply { etag: Some("\"put\"".to_owned()), ..plain(200) }
            }
            Ask::Head => match self.objects.get(path) {
                Some(object) => Reply { length: Some(to_u64(object.bytes.len())), ..plain(200) },
                None => plain(404),
            },
            Ask::Get { first, last } => self.part(path, *first, *last),
            Ask::Delete => {
                if let Some(object) = self.objects.get_mut(path) {
                    object.gone_at.get_or_insert(now + unseen);
                }
                plain(204)
            }
            Ask::List { prefix, after, limit } => self.list(prefix, after.as_deref(), *limit),
            Ask::Initiate => {
                self.next_upload += 1;
                let id = format!("upload-{:08}", self.next_upload);
                let reply = format!(
                    "<InitiateMultipartUploadResult><Bucket>model</Bucket><Key>{key}</Key>\
                     <UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                self.uploads.insert(id, Upload { key, parts: BTreeMap::new() });
                Reply { body: reply.into(), ..plain(200) }
            }
            Ask::PutPart { upload, number } => match self.uploads.get_mut(upload) {
                Some(upload) => {
                    upload.parts.insert(*number, body);
                    Reply { etag: Some(format!("\"part-{number}\"")), ..plain(200) }
                }
                None => refusal(404, "NoSuchUpload"),
            },
            Ask::Complete { upload, parts } => {
                let Some(upload) = self.uploads.remove(upload) else {
                    return refusal(404, "NoSuchUpload");
                };
                let mut bytes = BytesMut::new();
                for part in parts {
                    bytes.extend_from_slice(upload.parts.get(&part.part_number).unwrap_or(&body));
                }
                let object = Object { bytes: bytes.freeze(), sound: None, gone_at: None };
                self.objects.insert(upload.key, object);
                plain(200)
            }
            Ask::Abort { upload } => match self.uploads.remove(upload) {
                Some(_) => plain(204),
                None => refusal(404, "NoSuchUpload"),
            },
            Ask::Uploads { prefix, .. } => self.list_uploads(prefix),
        }
    }

    fn part(&self, path: &str, first: u64, last: u64) -> Reply {
        let Some(object) = self.objects.get(path) else { return refusal(404, "NoSuchKey") };
        let total = to_u64(object.bytes.len());
        if first >= total {
            return Reply { total: Some(total), ..refusal(416, "InvalidRange") };
        }
        let end = last.saturating_add(1).min(total);
        let body = object.bytes.slice(to_usize(first)..to_usize(end));
        Reply { body, total: Some(total), ..plain(206) }
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Reply {
        let from = after.filter(|after| *after >= prefix).unwrap_or(prefix);
        let mut found = self
            .objects
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .filter(|(key, _)| Some(key.as_str()) != after)
            .take_while(|(key, _)| key.starts_with(prefix));
        let mut text = "<ListBucketResult><Name>model</Name>".to_owned();
        for (key, object) in found.by_ref().take(limit) {
            let size = object.bytes.len();
            // Writing to a string does not fail.
            let _written = write!(
                text,
                "<Contents><LastModified>2030-01-01T00:00:00Z</LastModified><Key>{key}</Key>\
                 <Size>{size}</Size></Contents>"
            );
        }
        let more = found.next().is_some();
        let _written = write!(text, "<IsTruncated>{more}</IsTruncated></ListBucketResult>");
        Reply { body: text.into(), ..plain(200) }
    }

    fn list_uploads(&self, prefix: &str) -> Reply {
        let mut text = "<ListMultipartUploadsResult><Bucket>model</Bucket>\
                        <IsTruncated>false</IsTruncated>"
            .to_owned();
        for (id, upload) in self.uploads.iter().filter(|(_, it)| it.key.starts_with(prefix)) {
            let _written = write!(
                text,
                "<Upload><Initiated>2030-01-01T00:00:00Z</Initiated>\
                 <StorageClass>STANDARD</StorageClass><Key>{}</Key><UploadId>{id}</UploadId>\
                 </Upload>",
                upload.key
            );
        }
        text.push_str("</ListMultipartUploadsResult>");
        Reply { body: text.into(), ..plain(200) }
    }
}

fn plain(status: u16) -> Reply {
    Reply { status, body: Bytes::new(), etag: None, length: None, total: None }
}

fn refusal(status: u16, code: &str) -> Reply {
    Reply { body: format!("<Error><Code>{code}</Code></Error>").into(), ..plain(status) }
}

fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    let at = at % bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    bytes.into()
}
