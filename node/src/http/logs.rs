//! `POST /cluster/log`: lines of nodes' logs, sent as they come.
//!
//! It ends when its client goes away, when the client does not read for long, and when the node
//! drains.

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
    admin::cluster::{Following, LogEvent, LogRequest, next_event},
    limits::LOG_BATCHES_MAX,
};

pub(super) async fn follow(
    State(parts): State<HttpParts>,
    Extension(long): Extension<LongAnswers>,
    Body(request): Body<LogRequest>,
) -> Result<Response, ApiError> {
    const TYPE: HeaderValue = HeaderValue::from_static("application/x-ndjson");
    let following = Following::new(&parts.admin, &parts.fleet, request).await?;
    let (events, told) = mpsc::channel(LOG_BATCHES_MAX);
    let long = long.begin();
    let readiness = parts.readiness.clone();
    let task = parts.env.spawn("log", async move {
        let _long = long;
        let last = events.clone();
        tokio::select! {
            biased;
            () = readiness.draining() => {
                let reason = "the server is shutting down".to_owned();
                // A client that does not even take this is told by the connection's end.
                let _unheard = last.try_send(LogEvent::Stopped { reason });
            }
            () = following.run(events) => {}
        }
    });
    // The task lies in the stream, so it ends with it.
    let env = parts.env.clone();
    let body = stream::unfold((env, told, task), |(env, mut told, task)| async move {
        let event = next_event(&env, &mut told).await?;
        let mut text = serde_json::to_vec(&event).expect("events have string keys only");
        text.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (env, told, task)))
    });
    Ok(([(header::CONTENT_TYPE, TYPE)], Stream::from_stream(body)).into_response())
}
