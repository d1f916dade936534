//! Every refusal as HTTP: one match.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::admin::AdminError;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// No such path.
    #[error("there is nothing at this path")]
    NoRoute,
    /// The path is there, the method is not.
    #[error("this path does not take this method")]
    Method,
    /// No token, or a wrong one.
    #[error("the admin API needs the token in DATA/admin-token: Authorization: Bearer TOKEN")]
    Token,
    /// The request's body or query cannot be read.
    #[error("{1}")]
    Input(StatusCode, String),
    /// The request took too long.
    #[error("the request took too long; what it began may be half done, so ask again")]
    Timeout,
    /// The operation was refused.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// The body of an error's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ErrorDetail {
    /// For programs: never changes its meaning.
    code: String,
    /// For people: may change.
    message: String,
}

/// A refusal on its way to the client.
#[derive(Debug)]
pub(super) struct ApiError(Refusal);

impl<E: Into<Refusal>> From<E> for ApiError {
    fn from(refusal: E) -> Self {
        Self(refusal.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = status_and_code(&self.0);
        if status.is_server_error() {
            tracing::error!(code, error = %self.0, "HTTP request failed");
        }
        let error = ErrorDetail { code: code.to_owned(), message: self.0.to_string() };
        let mut response = (status, Json(ErrorBody { error })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1: a 401 says which scheme is wanted.
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

fn status_and_code(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::NoRoute => (StatusCode::NOT_FOUND, "no_route"),
        Refusal::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        Refusal::Token => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Refusal::Input(status, _) => (*status, "bad_request"),
        Refusal::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
        Refusal::Admin(error) => match error {
            AdminError::Name(_) => (StatusCode::BAD_REQUEST, "bad_name"),
            AdminError::PasswordShort | AdminError::Password(_) => {
                (StatusCode::BAD_REQUEST, "bad_password")
            }
            AdminError::Description => (StatusCode::BAD_REQUEST, "bad_description"),
            AdminError::Page(_) => (StatusCode::BAD_REQUEST, "bad_page"),
            AdminError::Exists(_) => (StatusCode::CONFLICT, "exists"),
            AdminError::Missing(_) => (StatusCode::NOT_FOUND, "missing"),
            AdminError::InUse(_) => (StatusCode::CONFLICT, "in_use"),
            AdminError::OtherKind(..) => (StatusCode::CONFLICT, "other_kind"),
            AdminError::NoTarget(_) => (StatusCode::CONFLICT, "no_target"),
            AdminError::BackedUpElsewhere => (StatusCode::NOT_IMPLEMENTED, "backed_up_elsewhere"),
            AdminError::NodeName(_) => (StatusCode::BAD_REQUEST, "bad_node_name"),
            AdminError::NoNode(_) => (StatusCode::NOT_FOUND, "no_node"),
            AdminError::NodeRuns(_) => (StatusCode::CONFLICT, "node_runs"),
            AdminError::NoKind(_) => (StatusCode::NOT_FOUND, "no_kind"),
            AdminError::Setting(_) => (StatusCode::UNPROCESSABLE_ENTITY, "setting"),
            AdminError::NoSession(_) => (StatusCode::NOT_FOUND, "no_session"),
            AdminError::Unanswered(..) => (StatusCode::BAD_GATEWAY, "unanswered"),
            AdminError::Certificate(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_certificate"),
            AdminError::CertificateName => (StatusCode::BAD_REQUEST, "bad_certificate_name"),
            AdminError::NoCertificate(_) => (StatusCode::NOT_FOUND, "no_certificate"),
            AdminError::ManyCertificates => (StatusCode::CONFLICT, "too_many_certificates"),
            AdminError::TooManyKeys(_) => (StatusCode::CONFLICT, "too_many_keys"),
            AdminError::Checking => (StatusCode::CONFLICT, "checking"),
            AdminError::Network(_) => (StatusCode::BAD_REQUEST, "bad_network"),
            AdminError::WideNetwork(_) => (StatusCode::UNPROCESSABLE_ENTITY, "wide_network"),
            AdminError::TrustedNetwork(..) => (StatusCode::CONFLICT, "trusted_network"),
            AdminError::BlockReason => (StatusCode::BAD_REQUEST, "bad_reason"),
            AdminError::ManyBlocks(_) => (StatusCode::CONFLICT, "too_many_blocks"),
            AdminError::Speed => (StatusCode::BAD_REQUEST, "bad_speed"),
            AdminError::TooMany => (StatusCode::CONFLICT, "too_many"),
            AdminError::NoMessage(_) => (StatusCode::NOT_FOUND, "no_message"),
            AdminError::ManyMessages => (StatusCode::BAD_REQUEST, "too_many_messages"),
            AdminError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            AdminError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        },
    }
}
