//! `POST /fsck`: a check whose lines are sent as they come.
//!
//! The check ends when its client goes away, when the client does not read, and when the node
//! drains; one runs at a time.

use axum::{
    Extension,
    body::{Body as Stream, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::sync::mpsc;

use super::{ApiError, HttpParts, api::Body, connection::LongAnswers};
use crate::{
    admin::fsck::{Line, Request},
    limits::FSCK_LINES_MAX,
};

pub(super) async fn check(
    State(parts): State<HttpParts>,
    Extension(long): Extension<LongAnswers>,
    Body(request): Body<Request>,
) -> Result<Response, ApiError> {
    const TYPE: HeaderValue = HeaderValue::from_static("application/x-ndjson");
    let check = parts.checker.begin(&parts.admin, &request).await?;
    let (lines, sent) = mpsc::channel(FSCK_LINES_MAX);
    let long = long.begin();
    let readiness = parts.readiness.clone();
    let task = parts.env.spawn("fsck", async move {
        let _long = long;
        tokio::select! {
            biased;
            () = readiness.draining() => {
                let stopped = Line::Stopped { reason: "the server is shutting down".to_owned() };
                // A client that does not even take this is told by the connection's end.
                let _unheard = lines.try_send(stopped);
            }
            () = check.run(&lines) => {}
        }
    });
    // The task lies in the stream, so it ends with it.
    let body = stream::unfold((sent, task), |(mut sent, task)| async move {
        let line = sent.recv().await?;
        let mut text = serde_json::to_vec(&line).expect("lines have string keys only");
        text.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (sent, task)))
    });
    Ok(([(header::CONTENT_TYPE, TYPE)], Stream::from_stream(body)).into_response())
}
