//! Requests, signed. `rust-s3` makes the URL, the headers and the signature; the body stays ours,
//! so that none is copied.

use ::s3::{
    Bucket,
    command::{Command, Multipart},
    request::{Request, tokio_backend::ReqwestRequest},
    serde_types::{CompleteMultipartUploadData, Part},
};
use bytes::Bytes;
use futures_util::FutureExt;
use reqwest::{Method, Url, header::HeaderMap};

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Head,
    Delete,
    Get { first: u64, last: u64 },
    List { prefix: String, after: Option<String>, limit: usize },
    Uploads { prefix: String, marker: Option<(String, Option<String>)>, limit: usize },
    Put,
    Initiate,
    PutPart { upload: String, number: u32 },
    Complete { upload: String, parts: Vec<Part> },
    Abort { upload: String },
}

/// A request that can be sent.
pub(super) struct Signed {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What the objects are, to whoever looks at the bucket.
const CONTENT_TYPE: &str = "application/octet-stream";

impl Ask {
    pub(super) fn method(&self) -> Method {
        match self {
            Self::Head => Method::HEAD,
            Self::Delete | Self::Abort { .. } => Method::DELETE,
            Self::Get { .. } | Self::List { .. } | Self::Uploads { .. } => Method::GET,
            Self::Put | Self::PutPart { .. } => Method::PUT,
            Self::Initiate | Self::Complete { .. } => Method::POST,
        }
    }

    fn command<'a>(&'a self, body: &'a [u8]) -> Command<'a> {
        let put = |multipart| Command::PutObject {
            content: body,
            content_type: CONTENT_TYPE,
            custom_headers: None,
            multipart,
        };
        match self {
            Self::Head => Command::HeadObject,
            Self::Delete => Command::DeleteObject,
            Self::Get { first, last } => {
                Command::GetObjectRange { start: *first, end: Some(*last) }
            }
            Self::List { prefix, after, limit } => Command::ListObjectsV2 {
                prefix: prefix.clone(),
                delimiter: None,
                continuation_token: None,
                start_after: after.clone(),
                max_keys: Some(*limit),
            },
            Self::Uploads { prefix, marker, limit } => Command::ListMultipartUploads {
                prefix: Some(prefix),
                delimiter: None,
                key_marker: marker.as_ref().map(|(key, _)| key.clone()),
                upload_id_marker: marker.as_ref().and_then(|(_, upload)| upload.clone()),
                max_uploads: Some(*limit),
            },
            Self::Put => put(None),
            Self::PutPart { upload, number } => put(Some(Multipart::new(*number, upload))),
            Self::Initiate => Command::InitiateMultipartUpload { content_type: CONTENT_TYPE },
            Self::Complete { upload, parts } => Command::CompleteMultipartUpload {
                upload_id: upload,
                data: CompleteMultipartUploadData { parts: parts.clone() },
            },
            Self::Abort { upload } => Command::AbortMultipartUpload { upload_id: upload },
        }
    }
}

/// Signs a request as of now; `None` where the settings make none. Hashes the body: a caller with
/// a large one does it where it may block.
pub(super) fn sign(bucket: &Bucket, path: &str, ask: &Ask, body: &Bytes) -> Option<Signed> {
    let command = ask.command(body);
    let own_body = match &command {
        Command::CompleteMultipartUpload { data, .. } => Bytes::from(data.to_string()),
        _ => body.clone(),
    };
    // Neither waits: the credentials stay as they are, and the bucket is ours alone.
    let request = ReqwestRequest::new(bucket, path, command).now_or_never()?.ok()?;
    let headers = request.headers().now_or_never()?.ok()?;
    Some(Signed { method: ask.method(), url: request.url().ok()?, headers, body: own_body })
}
