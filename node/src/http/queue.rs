//! The admin API of the outbound queue; any node answers for all.
//!
//! | method and path below `/admin/v1/queue` | does |
//! |---|---|
//! | GET `/` | lists what is queued, a row for each message and domain ([`QueueQuery`]) |
//! | GET `/stats` | counts it ([`StatsQuery`]) |
//! | GET `/messages/ID` | shows a message and its recipients |
//! | POST `/orders` | has messages retried, held, released or cancelled ([`OrderRequest`]) |

use axum::{
    Router,
    routing::{get, post},
};

use super::{
    HttpParts,
    api::{Answer, At, Body, In, Store, answer},
};
use crate::admin::{
    Page,
    queue::{
        self, OrderRequest, Ordered, QueueQuery, QueueStats, QueuedInfo, QueuedMessage, StatsQuery,
    },
};

pub(super) fn router() -> Router<HttpParts> {
    Router::new()
        .route("/", get(list))
        .route("/stats", get(stats))
        .route("/messages/{id}", get(show))
        .route("/orders", post(order))
}

async fn list(Store(admin): Store, In(query): In<QueueQuery>) -> Answer<Page<QueuedInfo>> {
    answer(queue::list(&admin, &query).await)
}

async fn stats(Store(admin): Store, In(query): In<StatsQuery>) -> Answer<QueueStats> {
    answer(queue::stats(&admin, &query).await)
}

async fn show(Store(admin): Store, At(id): At<String>) -> Answer<QueuedMessage> {
    answer(queue::show(&admin, &id).await)
}

async fn order(Store(admin): Store, Body(request): Body<OrderRequest>) -> Answer<Ordered> {
    answer(queue::order(&admin, &request).await)
}
