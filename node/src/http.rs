//! The HTTP port: admin API, metrics, health.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz/live` | 200 while the process can answer |
//! | `/healthz/ready` | 200 when ready; 503 while starting, while draining, while it stands aside and while its store is away |
//! | `/metrics` | OpenMetrics text |
//! | `/admin/v1/…` | the admin API (`http/api.rs` lists its paths), with a bearer token (RFC 6750 §2.1) |
//!
//! Every answer but metrics is JSON; every error is `{"error": {"code", "message"}}`.
//!
//! Invariants:
//! - Sockets and clocks come through [`Env`], hyper's timers included.
//! - Connections, their lives, heads and bodies are bounded by [`crate::limits`].
//!
//! Deliberately absent: TLS. The port belongs on a private address.

mod api;
mod backup;
mod cluster;
mod connection;
mod error;
mod fsck;
mod logs;
mod queue;
mod timer;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use env::Env;
use serde_json::json;
use tokio::sync::watch;

pub use connection::serve;
use error::{ApiError, Refusal};

use crate::{
    admin::{Admin, backup::Backup, cluster::Fleet, fsck::Checker, token::AdminToken},
    limits::HTTP_REQUEST_TIMEOUT,
    metrics::Metrics,
};

/// What the HTTP port answers from.
#[derive(Debug, Clone)]
pub struct HttpParts {
    /// The outside world.
    pub env: Env,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/healthz/ready` tells.
    pub readiness: Readiness,
    /// What the admin API works on.
    pub admin: Admin,
    /// What makes backups, where the node does.
    pub backup: Option<Backup>,
    /// What checks the store.
    pub checker: Checker,
    /// What asks DNS, where the node serves.
    pub resolver: Option<dns::Resolver>,
    /// What reaches the nodes, this one among them.
    pub fleet: Arc<dyn Fleet>,
    /// What opens the admin API.
    pub token: AdminToken,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not every port accepts yet.
    Starting,
    /// It was told to stand aside, and waits until it may serve.
    Drained,
    /// Every port accepts.
    Ready,
    /// The node finishes what is in flight and takes nothing new.
    Draining,
}

/// A node's phase, shared by whoever sets it and whoever asks. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Readiness {
    phase: watch::Sender<Phase>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Starting) }
    }
}

impl Readiness {
    /// A node that is starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Completes when the node takes nothing new any more.
    pub async fn draining(&self) {
        let mut phase = self.phase.subscribe();
        // The sender is `self`, so the wait does not end for want of one.
        let _reached = phase.wait_for(|phase| *phase == Phase::Draining).await;
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// The service, to be given to [`serve`].
pub fn router(parts: HttpParts) -> Router {
    let env = parts.env.clone();
    Router::new()
        .route("/healthz/live", get(live))
        .route("/healthz/ready", get(ready))
        .route("/metrics", get(metrics))
        .nest("/admin/v1", api::router(&parts))
        .fallback(async || ApiError::from(Refusal::NoRoute))
        .method_not_allowed_fallback(async || ApiError::from(Refusal::Method))
        .layer(middleware::from_fn_with_state(env, bounded))
        .with_state(parts)
}

/// The service of a node whose store is away: live and not ready.
pub(crate) fn waiting_router(env: Env) -> Router {
    let away = async || {
        let status = json!({"status": "waiting for the store"});
        (StatusCode::SERVICE_UNAVAILABLE, Json(status))
    };
    Router::new()
        .route("/healthz/live", get(live))
        .fallback(away)
        .layer(middleware::from_fn_with_state(env, bounded))
}

async fn live() -> Json<serde_json::Value> {
    Json(json!({"status": "live"}))
}

async fn ready(State(parts): State<HttpParts>) -> Response {
    let (code, status) = match parts.readiness.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Drained => (StatusCode::SERVICE_UNAVAILABLE, "drained"),
        Phase::Ready => (StatusCode::OK, "ready"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    (code, Json(json!({ "status": status }))).into_response()
}

async fn metrics(State(parts): State<HttpParts>) -> Response {
    const TYPE: HeaderValue =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, TYPE)], parts.metrics.render()).into_response()
}

/// Ends a request whose time is over.
async fn bounded(State(env): State<Env>, request: Request, next: Next) -> Response {
    match env.timeout(HTTP_REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::from(Refusal::Timeout).into_response(),
    }
}

#[cfg(test)]
mod tests;
