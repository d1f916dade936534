//! `POST /backup`: a backup, sent as it is read.
//!
//! It ends early when its client goes away or does not read for [`BACKUP_CLIENT_TIME`], when the
//! node drains, and on an error. Then the connection breaks off, and what the client has is no
//! backup: its end is missing.

use axum::{
    Extension,
    body::{Body as Stream, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use env::Env;
use futures_util::stream;
use tokio::sync::mpsc;

use super::{ApiError, HttpParts, connection::LongAnswers};
use crate::{
    admin::{AdminError, backup::BackupStream},
    limits::{BACKUP_CHUNKS_MAX, BACKUP_CLIENT_TIME},
};

type Chunk = Result<Bytes, Broken>;

/// The backup ended early.
#[derive(Debug, thiserror::Error)]
#[error("the backup ended early")]
struct Broken;

pub(super) async fn make(
    State(parts): State<HttpParts>,
    Extension(long): Extension<LongAnswers>,
) -> Result<Response, ApiError> {
    const TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");
    let backup = parts.backup.as_ref().ok_or(AdminError::BackedUpElsewhere)?;
    let reading = backup.begin().await.map_err(AdminError::Unavailable)?;
    let (chunks, sent) = mpsc::channel::<Chunk>(BACKUP_CHUNKS_MAX);
    let long = long.begin();
    let (readiness, env) = (parts.readiness.clone(), parts.env.clone());
    let task = parts.env.spawn("backup", async move {
        let _long = long;
        let sent = tokio::select! {
            biased;
            () = readiness.draining() => Err("the server is shutting down".to_owned()),
            sent = send(&env, reading, &chunks) => sent,
        };
        if let Err(reason) = sent {
            tracing::warn!(reason, "a backup ended early");
            // Without it the answer would look complete. Its client may be gone.
            let _unheard = env.timeout(BACKUP_CLIENT_TIME, chunks.send(Err(Broken))).await;
        }
    });
    // The task lies in the stream, so it ends with it.
    let body = stream::unfold((sent, task), |(mut sent, task)| async move {
        let chunk = sent.recv().await?;
        Some((chunk, (sent, task)))
    });
    Ok(([(header::CONTENT_TYPE, TYPE)], Stream::from_stream(body)).into_response())
}

async fn send(
    env: &Env,
    mut reading: BackupStream,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), String> {
    while let Some(chunk) = reading.next_chunk().await.map_err(|error| error.to_string())? {
        match env.timeout(BACKUP_CLIENT_TIME, chunks.send(Ok(chunk))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err("its client has gone".to_owned()),
            Err(_) => return Err("its client does not read".to_owned()),
        }
    }
    Ok(())
}
