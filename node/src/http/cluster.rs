//! The admin API of the cluster as a whole; any node answers for all.
//!
//! | method and path below `/admin/v1/cluster` | does |
//! |---|---|
//! | GET `/` | tells how all is ([`Status`]) |
//! | GET `/nodes` | lists nodes |
//! | GET, DELETE `/nodes/NAME` | shows one; forgets one that does not run |
//! | PUT `/nodes/NAME/wish` | sets `{wish}`: `drain` or `serve` |
//! | GET `/sessions` | lists sessions ([`SessionQuery`]): of all nodes, or with `?local` of this one |
//! | DELETE `/sessions/ID` | has a session say goodbye, whichever node has it |
//! | GET `/work` | tells of each kind of work |
//! | GET `/work` and `/KIND`, `/KIND/ZONE` behind it | lists a kind's zones, a zone's items |
//! | GET `/settings` | lists settings |
//! | PUT `/settings/NAME` | sets `{value}`, a text, or null for what each node's file says |
//! | GET `/settings/history` | lists changes, the newest first |
//! | GET `/certificates` | lists certificates, never a key |
//! | POST `/certificates` | adds a [`NewCertificate`], or puts it in the place of its name's |
//! | DELETE `/certificates/NAME` | removes one |
//! | POST `/log` | tells lines of nodes' logs ([`LogRequest`](cluster::LogRequest)); answers [`LogEvent`](cluster::LogEvent)s as they come |
//! | GET `/doctor` | tells what is wrong; takes a few seconds |

use axum::{
    Router,
    extract::State,
    routing::{get, put},
};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, HttpParts,
    api::{Added, Answer, At, Body, In, Removed, Store, added, answer, removed},
};
use crate::admin::{
    Page, PageQuery,
    cluster::{
        self, AddedCertificate, CertificateInfo, EndedSession, ItemInfo, NewCertificate, NodeInfo,
        Report, SessionPage, SessionQuery, SettingChange, SettingInfo, Status, Wish, WorkInfo,
        ZoneInfo,
    },
};
use crate::limits::ADMIN_PAGE_ROWS_MAX;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WishBody {
    wish: Wanted,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Drain,
    Serve,
}

pub(super) fn router() -> Router<HttpParts> {
    Router::new()
        .route("/", get(status))
        .route("/nodes", get(nodes))
        .route("/nodes/{name}", get(node).delete(forget))
        .route("/nodes/{name}/wish", put(wish))
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", axum::routing::delete(end_session))
        .nest("/work", work_router())
        .route("/settings", get(settings))
        .route("/settings/history", get(setting_history))
        .route("/settings/{name}", put(change_setting))
        .route("/certificates", get(certificates).post(add_certificate))
        .route("/certificates/{name}", axum::routing::delete(remove_certificate))
        .route("/log", axum::routing::post(super::logs::follow))
        .route("/doctor", get(doctor))
}

fn work_router() -> Router<HttpParts> {
    Router::new()
        .route("/", get(work))
        .route("/{kind}", get(zones))
        .route("/{kind}/{zone}", get(items))
}

async fn status(State(parts): State<HttpParts>) -> Answer<Status> {
    let blobs = Some(parts.checker.blobs());
    answer(cluster::status(&parts.admin, blobs, parts.fleet.here()).await)
}

async fn nodes(Store(admin): Store, In(query): In<PageQuery>) -> Answer<Page<NodeInfo>> {
    answer(cluster::nodes(&admin, &query).await)
}

async fn node(Store(admin): Store, At(name): At<String>) -> Answer<NodeInfo> {
    answer(cluster::node(&admin, &name).await)
}

async fn forget(Store(admin): Store, At(name): At<String>) -> Removed {
    removed(cluster::forget(&admin, &name).await)
}

async fn wish(
    Store(admin): Store,
    At(name): At<String>,
    Body(body): Body<WishBody>,
) -> Answer<NodeInfo> {
    let wish = match body.wish {
        Wanted::Drain => Wish::Drain,
        Wanted::Serve => Wish::Serve,
    };
    answer(cluster::wish(&admin, &name, wish).await)
}

async fn sessions(
    State(parts): State<HttpParts>,
    In(query): In<SessionQuery>,
) -> Answer<SessionPage> {
    answer(cluster::list_sessions(&parts.admin, &*parts.fleet, &query).await)
}

async fn end_session(
    State(parts): State<HttpParts>,
    At(id): At<String>,
) -> Result<axum::Json<EndedSession>, ApiError> {
    answer(cluster::end_session(&parts.admin, &*parts.fleet, &id).await)
}

async fn work(Store(admin): Store) -> Answer<Vec<WorkInfo>> {
    answer(cluster::kinds(&admin).await)
}

async fn zones(
    Store(admin): Store,
    At(kind): At<String>,
    In(query): In<PageQuery>,
) -> Answer<Page<ZoneInfo>> {
    answer(cluster::zones(&admin, &kind, &query).await)
}

async fn items(
    Store(admin): Store,
    At((kind, zone)): At<(String, String)>,
    In(query): In<PageQuery>,
) -> Answer<Page<ItemInfo>> {
    answer(cluster::items(&admin, &kind, &zone, &query).await)
}

async fn settings(Store(admin): Store) -> Answer<Vec<SettingInfo>> {
    answer(cluster::settings(&admin).await)
}

async fn setting_history(
    Store(admin): Store,
    In(query): In<PageQuery>,
) -> Answer<Vec<SettingChange>> {
    let limit = query.limit.unwrap_or(ADMIN_PAGE_ROWS_MAX).min(ADMIN_PAGE_ROWS_MAX);
    answer(cluster::setting_history(&admin, limit).await)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSetting {
    value: Option<String>,
}

async fn change_setting(
    Store(admin): Store,
    At(name): At<String>,
    Body(body): Body<NewSetting>,
) -> Answer<SettingInfo> {
    answer(cluster::change_setting(&admin, &name, body.value.as_deref(), "admin API").await)
}

async fn certificates(Store(admin): Store) -> Answer<Vec<CertificateInfo>> {
    answer(cluster::certificates(&admin).await)
}

async fn add_certificate(
    Store(admin): Store,
    Body(new): Body<NewCertificate>,
) -> Added<AddedCertificate> {
    added(cluster::add_certificate(&admin, &new).await)
}

async fn remove_certificate(Store(admin): Store, At(name): At<String>) -> Removed {
    removed(cluster::remove_certificate(&admin, &name).await)
}

async fn doctor(State(parts): State<HttpParts>) -> Answer<Report> {
    answer(cluster::doctor(&parts.admin, Some(parts.checker.blobs())).await)
}
