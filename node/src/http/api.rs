//! The admin API: paths to [`crate::admin`]'s functions.
//!
//! | method and path below `/admin/v1` | does |
//! |---|---|
//! | GET, POST `/domains` | lists; adds `{domain}`, and answers the keys that it begins with |
//! | GET, DELETE `/domains/D` | shows; removes |
//! | PUT `/domains/D/catch-all` | sets `{target}`, an address or null |
//! | GET, POST `/domains/D/dkim` | lists keys, with what DNS says now; does a [`Change`](crate::admin::dkim::Change) |
//! | GET, POST `/accounts` | lists; adds [`NewAccount`] |
//! | GET, DELETE `/accounts/A` | shows with usage; removes with all mail |
//! | PUT `/accounts/A/password` | sets `{password}` |
//! | PUT `/accounts/A/quota` | sets `{quota_bytes}`, a number above 0 or null |
//! | PUT `/accounts/A/login` | sets `{login}`: `enabled` or `disabled` |
//! | GET, POST `/aliases`, `/groups` | lists; adds `{address, members}` |
//! | GET, DELETE `/aliases/A`, `/groups/A` | shows; removes |
//! | PUT, DELETE `/aliases/A/members/M`, `/groups/A/members/M` | adds; removes a member |
//! | GET `/reports` | lists what others report |
//! | GET `/reports/R` | shows one with what it says |
//! | GET, POST `/blocks` | lists; blocks [`NewBlock`] |
//! | DELETE `/blocks/N` | ends the block of a network |
//! | … `/cluster/…` | the cluster as a whole: `http/cluster.rs` lists its paths |
//! | … `/queue/…` | the outbound queue: `http/queue.rs` lists its paths |
//! | POST `/backup` | answers a backup, in the embedded engine's own format |
//! | POST `/fsck` | checks the store ([`Request`](crate::admin::fsck::Request)); answers [`Line`](crate::admin::fsck::Line)s as they come |
//!
//! Lists take `?after=…&limit=…` ([`PageQuery`]). Adding answers 201, removing 204.

use std::num::NonZeroU64;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use mail::directory::ListKind;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{ApiError, HttpParts, Refusal};
use crate::{
    admin::{
        Admin, Page, PageQuery, Password,
        accounts::{self, AccountDetail, AccountInfo, Login, NewAccount},
        blocks::{self, BlockInfo, NewBlock},
        dkim::{self, DkimKeyInfo},
        domains::{self, DomainInfo},
        lists::{self, MemberChange},
        reports::{self, ReportDetail, ReportInfo},
    },
    limits::HTTP_BODY_BYTES_MAX,
};

pub(super) type Answer<T> = Result<Json<T>, ApiError>;
pub(super) type Added<T> = Result<(StatusCode, Json<T>), ApiError>;
pub(super) type Removed = Result<StatusCode, ApiError>;

pub(super) fn router(parts: &HttpParts) -> Router<HttpParts> {
    Router::new()
        .route("/domains", get(domain_list).post(domain_add))
        .route("/domains/{domain}", get(domain_show).delete(domain_remove))
        .route("/domains/{domain}/catch-all", put(domain_catch_all))
        .route("/domains/{domain}/dkim", get(dkim_list).post(dkim_change))
        .route("/accounts", get(account_list).post(account_add))
        .route("/accounts/{address}", get(account_show).delete(account_remove))
        .route("/accounts/{address}/password", put(account_password))
        .route("/accounts/{address}/quota", put(account_quota))
        .route("/accounts/{address}/login", put(account_login))
        .route("/reports", get(report_list))
        .route("/reports/{report}", get(report_show))
        .route("/blocks", get(block_list).post(block_add))
        .route("/blocks/{network}", axum::routing::delete(block_remove))
        .route("/fsck", post(super::fsck::check))
        .route("/backup", post(super::backup::make))
        .nest("/cluster", super::cluster::router())
        .nest("/queue", super::queue::router())
        .nest("/aliases", list_router(ListKind::Alias))
        .nest("/groups", list_router(ListKind::Group))
        .fallback(async || ApiError::from(Refusal::NoRoute))
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(parts.clone(), authorized))
}

fn list_router(kind: ListKind) -> Router<HttpParts> {
    let list = async move |Store(admin): Store, In(query): In<PageQuery>| {
        answer(lists::list(&admin, kind, &query).await)
    };
    let add = async move |Store(admin): Store, Body(new): Body<NewList>| {
        added(lists::add(&admin, kind, &new.address, &new.members).await)
    };
    let show = async move |Store(admin): Store, At(address): At<String>| {
        answer(lists::show(&admin, kind, &address).await)
    };
    let remove = async move |Store(admin): Store, At(address): At<String>| {
        removed(lists::remove(&admin, kind, &address).await)
    };
    let change = move |change| {
        async move |Store(admin): Store, At((address, member)): At<(String, String)>| {
            answer(lists::change_member(&admin, kind, &address, change, &member).await)
        }
    };
    Router::new()
        .route("/", get(list).post(add))
        .route("/{address}", get(show).delete(remove))
        .route(
            "/{address}/members/{member}",
            put(change(MemberChange::Add)).delete(change(MemberChange::Remove)),
        )
}

/// Lets nobody pass who does not show the token, and records who changed what.
async fn authorized(State(parts): State<HttpParts>, request: Request, next: Next) -> Response {
    // RFC 6750 §2.1; RFC 9110 §11.1: the scheme's case does not matter.
    let presented = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_at_checked(7))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .map(|(_, token)| token);
    if !presented.is_some_and(|token| parts.token.matches(token)) {
        return ApiError::from(Refusal::Token).into_response();
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if !method.is_safe() {
        tracing::info!(%method, path, status = response.status().as_u16(), "administration");
    }
    response
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDomain {
    domain: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatchAll {
    target: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    password: Password,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quota {
    quota_bytes: Option<NonZeroU64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginState {
    login: Login,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewList {
    address: String,
    members: Vec<String>,
}

async fn domain_list(Store(admin): Store, In(query): In<PageQuery>) -> Answer<Page<DomainInfo>> {
    answer(domains::list(&admin, &query).await)
}

async fn domain_add(Store(admin): Store, Body(new): Body<NewDomain>) -> Added<dkim::NewDomain> {
    added(dkim::add_domain(&admin, &new.domain).await)
}

async fn dkim_list(
    State(parts): State<HttpParts>,
    At(domain): At<String>,
) -> Answer<Vec<DkimKeyInfo>> {
    answer(dkim::list(&parts.admin, &domain, parts.resolver.as_ref()).await)
}

async fn dkim_change(
    Store(admin): Store,
    At(domain): At<String>,
    Body(change): Body<dkim::Change>,
) -> Answer<Vec<DkimKeyInfo>> {
    answer(dkim::change(&admin, &domain, &change).await)
}

async fn domain_show(Store(admin): Store, At(domain): At<String>) -> Answer<DomainInfo> {
    answer(domains::show(&admin, &domain).await)
}

async fn domain_remove(Store(admin): Store, At(domain): At<String>) -> Removed {
    removed(domains::remove(&admin, &domain).await)
}

async fn domain_catch_all(
    Store(admin): Store,
    At(domain): At<String>,
    Body(to): Body<CatchAll>,
) -> Answer<DomainInfo> {
    answer(domains::set_catch_all(&admin, &domain, to.target.as_deref()).await)
}

async fn account_list(Store(admin): Store, In(query): In<PageQuery>) -> Answer<Page<AccountInfo>> {
    answer(accounts::list(&admin, &query).await)
}

async fn account_add(Store(admin): Store, Body(new): Body<NewAccount>) -> Added<AccountInfo> {
    added(accounts::add(&admin, &new).await)
}

async fn account_show(Store(admin): Store, At(address): At<String>) -> Answer<AccountDetail> {
    answer(accounts::show(&admin, &address).await)
}

async fn account_remove(Store(admin): Store, At(address): At<String>) -> Removed {
    removed(accounts::remove(&admin, &address).await)
}

async fn account_password(
    Store(admin): Store,
    At(address): At<String>,
    Body(new): Body<NewPassword>,
) -> Removed {
    removed(accounts::set_password(&admin, &address, &new.password).await)
}

async fn account_quota(
    Store(admin): Store,
    At(address): At<String>,
    Body(quota): Body<Quota>,
) -> Answer<AccountInfo> {
    answer(accounts::set_quota(&admin, &address, quota.quota_bytes).await)
}

async fn account_login(
    Store(admin): Store,
    At(address): At<String>,
    Body(state): Body<LoginState>,
) -> Answer<AccountInfo> {
    answer(accounts::set_login(&admin, &address, state.login).await)
}

async fn report_list(Store(admin): Store, In(query): In<PageQuery>) -> Answer<Page<ReportInfo>> {
    answer(reports::list(&admin, &query).await)
}

async fn report_show(Store(admin): Store, At(report): At<String>) -> Answer<ReportDetail> {
    answer(reports::show(&admin, &report).await)
}

async fn block_list(Store(admin): Store, In(query): In<PageQuery>) -> Answer<Page<BlockInfo>> {
    answer(blocks::list(&admin, &query).await)
}

async fn block_add(Store(admin): Store, Body(new): Body<NewBlock>) -> Added<BlockInfo> {
    added(blocks::add(&admin, &new, "admin API").await)
}

async fn block_remove(Store(admin): Store, At(network): At<String>) -> Removed {
    removed(blocks::remove(&admin, &network).await)
}

pub(super) fn answer<T>(result: Result<T, crate::admin::AdminError>) -> Answer<T> {
    Ok(Json(result?))
}

pub(super) fn added<T>(result: Result<T, crate::admin::AdminError>) -> Added<T> {
    Ok((StatusCode::CREATED, Json(result?)))
}

pub(super) fn removed(result: Result<(), crate::admin::AdminError>) -> Removed {
    result?;
    Ok(StatusCode::NO_CONTENT)
}

/// The store, out of the service's state.
pub(super) struct Store(pub(super) Admin);

impl FromRequestParts<HttpParts> for Store {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(
        _: &mut axum::http::request::Parts,
        parts: &HttpParts,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.admin.clone()))
    }
}

/// The names in the path.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<HttpParts> for At<T> {
    type Rejection = ApiError;
    async fn from_request_parts(
        request: &mut axum::http::request::Parts,
        parts: &HttpParts,
    ) -> Result<Self, ApiError> {
        match Path::from_request_parts(request, parts).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(refusal) => Err(Refusal::Input(refusal.status(), refusal.body_text()).into()),
        }
    }
}

/// The query.
pub(super) struct In<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<HttpParts> for In<T> {
    type Rejection = ApiError;
    async fn from_request_parts(
        request: &mut axum::http::request::Parts,
        parts: &HttpParts,
    ) -> Result<Self, ApiError> {
        match Query::from_request_parts(request, parts).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(refusal) => Err(Refusal::Input(refusal.status(), refusal.body_text()).into()),
        }
    }
}

/// The body, JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<HttpParts> for Body<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, parts: &HttpParts) -> Result<Self, ApiError> {
        match Json::from_request(request, parts).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(refusal) => Err(Refusal::Input(refusal.status(), refusal.body_text()).into()),
        }
    }
}
