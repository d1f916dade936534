//! A real S3 server in this process, and what can go wrong on the way to it.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use env::{Env, Task};
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
};
use hyper_util::rt::TokioIo;
use s3s::service::S3Service;
use tokio_rustls::TlsAcceptor;

use crate::{
    BlobStore,
    binding::MARK,
    s3::{AddressStyle, CacheSettings, Credentials, Retries, S3Settings, TimeLimits},
};

/// What happens to one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// The connection ends before there is an answer; nothing was done.
    Refused,
    /// This status and code; nothing was done.
    Status(u16, &'static str),
    /// The request is done and the connection ends without an answer.
    AnswerLost,
    /// No answer, ever; nothing was done.
    Stalled,
    /// The answer begins and never ends.
    StalledMidBody,
    /// The connection ends in the middle of the answer's body.
    Cut,
    /// One byte of the answer's body is another.
    WrongByte,
    /// The last bytes of the answer's body are missing, and its length says so.
    Shorter,
    /// The answer's body goes on, and its length says so.
    Longer,
    /// Done, but the answer says that it failed after all.
    ErrorInOk,
    /// Nothing.
    None,
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    /// What was asked: method, and what the query says of it.
    asked: Vec<String>,
    /// Uploads that were begun: path and id. The server below does not list them.
    uploads: Vec<(String, String)>,
}

/// The server.
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    endpoint: String,
    folder: tempfile::TempDir,
    _task: Task<()>,
}

const ACCESS_KEY: &str = "AKIATEST";
const SECRET_KEY: &str = "secret";

/// How a server is reached.
#[derive(Default)]
pub(crate) struct Reached {
    /// Over TLS, as this says.
    pub(crate) tls: Option<TlsAcceptor>,
    /// By names of buckets below this one.
    pub(crate) domain: Option<&'static str>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_as(Reached::default()).await
    }

    pub(crate) async fn start_as(Reached { tls, domain }: Reached) -> Self {
        let env = Env::system();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("mail")).unwrap();
        let files = s3s_fs::FileSystem::new(folder.path()).unwrap();
        let mut builder = s3s::service::S3ServiceBuilder::new(files);
        builder.set_auth(s3s::auth::SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = listener.local_address().unwrap();
        let endpoint = format!("{scheme}://{address}");
        if let Some(domain) = domain {
            let domain = format!("{domain}:{}", address.port());
            builder.set_host(s3s::host::SingleDomain::new(&domain).unwrap());
        }
        let service = builder.build();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = Env::system().spawn("s3", async move {
            loop {
                let connection = listener.accept().await.unwrap();
                let (service, state) = (service.clone(), Arc::clone(&shared));
                let serve = hyper::service::service_fn(move |request| {
                    answer(service.clone(), Arc::clone(&state), request)
                });
                let tls = tls.clone();
                env.spawn("connection", async move {
                    let stream: env::Stream = match tls {
                        None => connection.stream,
                        Some(tls) => match tls.accept(connection.stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_refused) => return,
                        },
                    };
                    let http = hyper::server::conn::http1::Builder::new();
                    let _cut = http.serve_connection(TokioIo::new(stream), serve).await;
                })
                .detach();
            }
        });
        Self { state, address, endpoint, folder, _task: task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Short limits and rests, and no cache.
    pub(crate) fn settings(&self) -> S3Settings {
        let ms = std::time::Duration::from_millis;
        S3Settings {
            endpoint: self.endpoint.clone(),
            region: "us-east-1".to_owned(),
            bucket: "mail".to_owned(),
            prefix: "some/place/".to_owned(),
            style: AddressStyle::Path,
            ca_file: None,
            credentials: Credentials::new(ACCESS_KEY.to_owned(), SECRET_KEY.to_owned()),
            time_limits: TimeLimits { connect: ms(2_000), request: ms(10_000), stall: ms(5_000) },
            retries: Retries { attempts: 3, delay: ms(1), delay_max: ms(4) },
            cache: None,
            requests_max: 4,
        }
    }

    pub(crate) async fn store(&self) -> BlobStore {
        BlobStore::s3(self.settings(), Env::system()).await.unwrap()
    }

    pub(crate) async fn cached(&self, cache: CacheSettings) -> BlobStore {
        let settings = S3Settings { cache: Some(cache), ..self.settings() };
        BlobStore::s3(settings, Env::system()).await.unwrap()
    }

    /// What happens to the next requests; nothing to those after them.
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults = faults.into_iter().collect();
    }

    /// What happens to every request.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        self.state.lock().unwrap().always = fault;
    }

    /// What was asked since the last look.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    pub(crate) fn uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }

    /// The files of the blobs, with what is in them.
    pub(crate) fn objects(&self) -> Vec<std::path::PathBuf> {
        let is_mark = |path: &std::path::PathBuf| file_name(path).starts_with(MARK);
        self.files().into_iter().filter(|path| !is_mark(path)).collect()
    }

    /// The names of the stores' marks, without the prefix.
    pub(crate) fn marks(&self) -> Vec<String> {
        let names = self.files().into_iter().map(|path| file_name(&path));
        names.filter(|name| name.starts_with(MARK)).collect()
    }

    /// Removes an object behind everybody's back.
    pub(crate) fn remove(&self, key: &str) {
        std::fs::remove_file(self.folder.path().join("mail").join(key)).unwrap();
    }

    /// Puts an object as a person does.
    pub(crate) fn place_object(&self, key: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join("mail").join(key), bytes).unwrap();
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let folder = self.folder.path().join("mail/some/place");
        let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

type Answer = Response<Faulty>;

async fn answer(
    service: S3Service,
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Answer, std::io::Error> {
    let refused = || std::io::Error::other("as planned");
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let query = uri.query().unwrap_or_default().to_owned();
    let kind: String = query.split(['=', '&']).next().unwrap_or_default().to_owned();
    let fault = {
        let mut state = state.lock().unwrap();
        state.asked.push(format!("{method} {kind}").trim_end().to_owned());
        let always = state.always.clone();
        always.or_else(|| state.faults.pop_front()).unwrap_or(Fault::None)
    };
    match &fault {
        Fault::Refused => return Err(refused()),
        Fault::Stalled => std::future::pending().await,
        Fault::Status(status, code) => {
            let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
            return Ok(plain(*status, body));
        }
        _ => {}
    }
    if method == Method::GET && query.starts_with("uploads") {
        let after = query.split_once("key-marker=").map(|(_, rest)| rest);
        return Ok(list_uploads(&state.lock().unwrap().uploads, after.is_some()));
    }
    // By the bucket's name in the host's, the path is the object's alone.
    let path = uri.path().strip_prefix("/mail").unwrap_or(uri.path()).to_owned();
    let response = service.call(request.map(s3s::Body::from)).await;
    let (mut head, body) = response.map_err(|_| refused())?.into_parts();
    let mut body = body.collect().await.map_err(|_| refused())?.to_bytes().to_vec();
    note_uploads(&mut state.lock().unwrap().uploads, &method, &path, &query, &body);
    head.headers.remove("transfer-encoding");
    let mut end = End::Whole;
    let place = body.len() / 2;
    match fault {
        Fault::AnswerLost => return Err(refused()),
        Fault::Cut => end = End::Cut,
        Fault::StalledMidBody => end = End::Stall,
        Fault::WrongByte if !body.is_empty() => body[place] ^= 1,
        Fault::Shorter => body.truncate(place),
        Fault::Longer => body.extend(std::iter::repeat_n(b'x', 700_000)),
        Fault::ErrorInOk => body = b"<Error><Code>InternalError</Code></Error>".to_vec(),
        _ => {}
    }
    if method != Method::HEAD {
        head.headers.insert("content-length", body.len().into());
    }
    if end != End::Whole {
        body.truncate(place);
    }
    Ok(Response::from_parts(head, Faulty { bytes: Some(body.into()), end }))
}

fn plain(status: u16, body: String) -> Answer {
    let mut response = Response::new(Faulty { bytes: Some(body.into()), end: End::Whole });
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Two, and after a marker the rest: those of the first page were aborted meanwhile, or are too
/// young and at the beginning still.
fn list_uploads(uploads: &[(String, String)], rest: bool) -> Answer {
    let listed: String = uploads
        .iter()
        .take(if rest { usize::MAX } else { 2 })
        .map(|(path, id)| {
            let key = path.strip_prefix('/').unwrap();
            format!(
                "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>t</Initiated>\
                 <StorageClass>STANDARD</StorageClass></Upload>"
            )
        })
        .collect();
    let truncated = uploads.len() > 2 && !rest;
    let next = if truncated { "<NextKeyMarker>x</NextKeyMarker>" } else { "" };
    plain(
        200,
        format!(
            "<ListMultipartUploadsResult><Bucket>mail</Bucket>{next}\
             <IsTruncated>{truncated}</IsTruncated>{listed}</ListMultipartUploadsResult>"
        ),
    )
}

fn note_uploads(
    uploads: &mut Vec<(String, String)>,
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
) {
    let text = String::from_utf8_lossy(body);
    if method == Method::POST && query.starts_with("uploads") {
        let id = text.split_once("<UploadId>").unwrap().1.split_once('<').unwrap().0;
        uploads.push((path.to_owned(), id.to_owned()));
    } else if let Some(ended) = query.strip_prefix("uploadId=")
        && (method == Method::DELETE || text.contains("CompleteMultipartUploadResult"))
    {
        uploads.retain(|(_, id)| id != ended);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Whole,
    Cut,
    Stall,
}

/// A body that may end badly.
pub(crate) struct Faulty {
    bytes: Option<Bytes>,
    end: End,
}

impl Body for Faulty {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match (self.bytes.take(), self.end) {
            (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Cut) => Poll::Ready(Some(Err(std::io::Error::other("cut")))),
            (None, End::Stall) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end == End::Whole && self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }
}
