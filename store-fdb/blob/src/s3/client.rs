//! One request: its place, its tries, its time limits, its answer.

use std::{
    fmt::Display,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ::s3::{Bucket, Region};
use bytes::{Bytes, BytesMut};
use env::Env;
use reqwest::header::{CONTENT_RANGE, ETAG};
use tokio::sync::Semaphore;

use super::{
    S3Settings,
    settings::{AddressStyle, Retries, TimeLimits},
    sign::{Ask, Signed, sign},
};
use crate::{
    BlobError,
    limits::{S3_CA_BYTES_MAX, S3_CODE_BYTES_MAX, S3_INLINE_HASH_BYTES, S3_REPLY_BYTES_MAX},
    store::to_u64,
};

/// Requests to a model under way at once: as many as a node allows itself.
#[cfg(feature = "model")]
const MODEL_REQUESTS_MAX: usize = 64;

/// What the backend has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct S3Counts {
    /// Requests that were sent, tries included.
    pub requests: u64,
    /// Of those, how many were sent again.
    pub retries: u64,
    /// Requests that failed however often they were tried.
    pub failures: u64,
    /// Answers that were not the blob's bytes, from the service or the cache.
    pub damaged: u64,
    /// Pieces found in the cache, or on their way to somebody else.
    pub cache_hits: u64,
    /// Pieces that had to be asked for.
    pub cache_misses: u64,
    /// Reads and writes of the cache that failed; each is a miss at worst.
    pub cache_errors: u64,
    /// Bytes in the cache.
    pub cache_bytes: u64,
    /// Files in the cache.
    pub cache_files: u64,
}

pub(super) struct Client {
    pub(super) env: Env,
    transport: Transport,
    time_limits: TimeLimits,
    retries: Retries,
    places: Semaphore,
    requests: AtomicU64,
    retried: AtomicU64,
    failures: AtomicU64,
    pub(super) damaged: AtomicU64,
}

/// Where requests go.
enum Transport {
    /// To a service, over HTTP.
    Service(Service),
    /// To a model of one.
    #[cfg(feature = "model")]
    Model(super::model::BucketLink),
}

/// A service, and what requests to it are signed with.
pub(super) struct Service {
    pub(super) bucket: Arc<Bucket>,
    pub(super) http: reqwest::Client,
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) etag: Option<String>,
    pub(super) length: Option<u64>,
    /// The object's length, where the answer is a part of it or there is no such part.
    pub(super) total: Option<u64>,
}

/// Why a try failed that may be followed by another.
pub(super) struct Failed(pub(super) String);

impl Reply {
    /// The answer, where it is what was asked for.
    pub(super) fn done(self, operation: &'static str) -> Result<Self, BlobError> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.refusal(operation)) }
    }

    pub(super) fn refusal(&self, operation: &'static str) -> BlobError {
        BlobError::Refused { operation, status: self.status, code: self.code() }
    }

    /// S3's error code, if this is one: letters, digits and points, and no more than a log takes.
    pub(super) fn code(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let code = code.map_or("", |(code, _)| code);
        let plain = code.chars().all(|it| it.is_ascii_alphanumeric() || it == '.');
        if plain && code.len() <= S3_CODE_BYTES_MAX { code.to_owned() } else { String::new() }
    }

    /// Whether asking again may help.
    fn is_passing(&self, ask: &Ask) -> bool {
        match self.status {
            408 | 429 | 500..=599 => true,
            400 | 409 => matches!(
                &*self.code(),
                "RequestTimeout" | "SlowDown" | "BadDigest" | "IncompleteBody" | "OperationAborted"
            ),
            // S3 says that it completes an upload before it knows whether it will.
            200 => matches!(ask, Ask::Complete { .. }) && !self.code().is_empty(),
            _ => false,
        }
    }
}

impl Client {
    pub(super) fn new(settings: S3Settings, env: Env) -> Result<Self, BlobError> {
        let unusable = |reason: &str| BlobError::Unavailable {
            operation: "configure the blob service",
            reason: reason.to_owned(),
        };
        let endpoint = settings.endpoint.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&endpoint).map_err(|_| unusable("the endpoint is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.path() != "/" {
            return Err(unusable("the endpoint is not http:// or https:// and a host alone"));
        }
        let keys = settings.credentials;
        let credentials = ::s3::creds::Credentials::new(
            Some(&keys.access_key),
            Some(&keys.secret_key),
            None,
            keys.session_token.as_deref(),
            None,
        );
        let credentials = credentials.map_err(|_| unusable("the credentials are not usable"))?;
        let region = Region::Custom { region: settings.region, endpoint };
        let bucket = Bucket::new(&settings.bucket, region, credentials)
            .map_err(|_| unusable("the bucket's name is not usable"))?;
        let bucket = match settings.style {
            AddressStyle::Path => bucket.with_path_style(),
            AddressStyle::VirtualHost => bucket,
        };
        let mut http = reqwest::Client::builder()
            .connect_timeout(settings.time_limits.connect)
            .pool_max_idle_per_host(settings.requests_max)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(file) = &settings.ca_file {
            http = http.tls_built_in_root_certs(false);
            for authority in authorities(file).map_err(|reason| unusable(&reason))? {
                http = http.add_root_certificate(authority);
            }
        }
        let http = http.build().map_err(|_| unusable("no HTTP client"))?;
        let transport = Transport::Service(Service { bucket: Arc::from(bucket), http });
        let (time_limits, retries) = (settings.time_limits, settings.retries);
        Ok(Self::over(transport, env, time_limits, retries, settings.requests_max))
    }

    /// A client of a model, treated as a service is by default.
    #[cfg(feature = "model")]
    pub(super) fn of_model(link: super::model::BucketLink, env: Env) -> Self {
        let (time_limits, retries) = (TimeLimits::default(), Retries::default());
        Self::over(Transport::Model(link), env, time_limits, retries, MODEL_REQUESTS_MAX)
    }

    fn over(
        transport: Transport,
        env: Env,
        time_limits: TimeLimits,
        retries: Retries,
        requests_max: usize,
    ) -> Self {
        Self {
            env,
            transport,
            time_limits,
            retries,
            places: Semaphore::new(requests_max.max(1)),
            requests: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        }
    }

    /// The service, where it is one.
    #[cfg(test)]
    pub(super) fn service(&mut self) -> &mut Service {
        match &mut self.transport {
            Transport::Service(service) => service,
            #[cfg(feature = "model")]
            Transport::Model(_) => panic!("this client has a model"),
        }
    }

    pub(super) fn counts(&self) -> S3Counts {
        S3Counts {
            requests: self.requests.load(Relaxed),
            retries: self.retried.load(Relaxed),
            failures: self.failures.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
            ..S3Counts::default()
        }
    }

    /// Asks until there is an answer that will not change, or the tries are used up. An answer
    /// longer than `body_max` is none.
    pub(super) async fn call(
        &self,
        operation: &'static str,
        path: &str,
        ask: &Ask,
        body: Bytes,
        body_max: usize,
    ) -> Result<Reply, BlobError> {
        let mut delay = self.retries.delay;
        let mut attempt = 1;
        loop {
            let failed = match Box::pin(self.attempt(path, ask, body.clone(), body_max)).await {
                Ok(reply) if !reply.is_passing(ask) => return Ok(reply),
                Ok(reply) => {
                    let code = reply.code();
                    Failed(format!("status {} {code}", reply.status).trim_end().to_owned())
                }
                Err(failed) => failed,
            };
            if attempt >= self.retries.attempts {
                self.failures.fetch_add(1, Relaxed);
                env::sometimes!("a request to S3 was given up");
                let reason = format!("{} (tried {attempt} times)", failed.0);
                return Err(BlobError::Unavailable { operation, reason });
            }
            tracing::debug!(operation, attempt, reason = failed.0, "the blob service failed");
            self.env.sleep(self.jittered(delay)).await;
            delay = (delay * 2).min(self.retries.delay_max);
            attempt += 1;
            env::sometimes!("a request to S3 was sent again");
            self.retried.fetch_add(1, Relaxed);
        }
    }

    /// Takes back an upload that was begun.
    pub(super) async fn abort(&self, path: &str, upload: &str) -> Result<(), BlobError> {
        let ask = Ask::Abort { upload: upload.to_owned() };
        let operation = "abort an upload";
        let reply = self.call(operation, path, &ask, Bytes::new(), S3_REPLY_BYTES_MAX).await?;
        if reply.status != 404 {
            reply.done(operation)?;
        }
        Ok(())
    }

    /// Between half of `delay` and all of it.
    fn jittered(&self, delay: Duration) -> Duration {
        let half_us = u64::try_from(delay.as_micros() / 2).unwrap_or(u64::MAX);
        delay / 2 + Duration::from_micros(self.env.random_below(half_us))
    }

    async fn attempt(
        &self,
        path: &str,
        ask: &Ask,
        body: Bytes,
        body_max: usize,
    ) -> Result<Reply, Failed> {
        let limit = self.time_limits.request;
        let place = self.env.timeout(limit, self.places.acquire()).await;
        let _place = place
            .map_err(|_| Failed("too many requests are under way".to_owned()))?
            .map_err(|_| Failed("the client is closed".to_owned()))?;
        let answer = match &self.transport {
            Transport::Service(service) => {
                let signed = self.signed(service, path, ask, body).await?;
                self.requests.fetch_add(1, Relaxed);
                self.env.timeout(limit, self.exchange(service, signed, body_max)).await
            }
            #[cfg(feature = "model")]
            Transport::Model(link) => {
                self.requests.fetch_add(1, Relaxed);
                let answer = link.answer(&self.env, path, ask, body, body_max);
                self.env.timeout(limit, answer).await
            }
        };
        answer.unwrap_or_else(|_| Err(Failed("no answer in time".to_owned())))
    }

    async fn signed(
        &self,
        service: &Service,
        path: &str,
        ask: &Ask,
        body: Bytes,
    ) -> Result<Signed, Failed> {
        let signed = if body.len() <= S3_INLINE_HASH_BYTES {
            sign(&service.bucket, path, ask, &body)
        } else {
            let (bucket, path, ask) = (Arc::clone(&service.bucket), path.to_owned(), ask.clone());
            let signed = self.env.run_blocking(move || sign(&bucket, &path, &ask, &body)).await;
            signed.ok().flatten()
        };
        signed.ok_or_else(|| Failed("the request cannot be made".to_owned()))
    }

    async fn exchange(
        &self,
        service: &Service,
        signed: Signed,
        body_max: usize,
    ) -> Result<Reply, Failed> {
        let Signed { method, url, headers, body } = signed;
        let is_head = method == reqwest::Method::HEAD;
        let request = service.http.request(method, url).headers(headers).body(body);
        let mut response = request.send().await.map_err(|error| Failed(in_words(&error)))?;
        let status = response.status().as_u16();
        let header = |name| {
            let value: Option<&reqwest::header::HeaderValue> = response.headers().get(name);
            value.and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let total = header(CONTENT_RANGE);
        let total = total.and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        let etag = header(ETAG);
        // An error's words are read whatever length was asked for.
        let bound = if status < 300 { body_max } else { body_max.max(S3_REPLY_BYTES_MAX) };
        let too_long = || Failed("the answer is longer than what was asked for".to_owned());
        let length = match is_head {
            true => header(reqwest::header::CONTENT_LENGTH).and_then(|it| it.parse().ok()),
            false => response.content_length(),
        };
        if !is_head && length.is_some_and(|length| length > to_u64(bound)) {
            return Err(too_long());
        }
        let mut bytes = BytesMut::new();
        loop {
            let piece = self.env.timeout(self.time_limits.stall, response.chunk()).await;
            let piece = piece.map_err(|_| Failed("the answer stalled".to_owned()))?;
            let Some(piece) = piece.map_err(|error| Failed(in_words(&error)))? else { break };
            if bytes.len() + piece.len() > bound {
                return Err(too_long());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Reply { status, body: bytes.freeze(), etag, length, total })
    }
}

/// What a file of certificate authorities holds: at least one.
fn authorities(file: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let told = |reason: &dyn Display| format!("{}: {reason}", file.display());
    let length = std::fs::metadata(file).map_err(|error| told(&error))?.len();
    if length > S3_CA_BYTES_MAX {
        return Err(told(&"this is no file of certificates"));
    }
    let pem = std::fs::read(file).map_err(|error| told(&error))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if found.is_empty() { Err(told(&"this is no file of certificates")) } else { Ok(found) }
}

/// Without the URL, and in no more words than a log takes.
fn in_words(error: &reqwest::Error) -> String {
    let what = if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "no answer in time"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "the connection broke"
    };
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return format!("{what}: {}", io.kind());
        }
        source = inner.source();
    }
    what.to_owned()
}
