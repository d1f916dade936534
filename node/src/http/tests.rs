//! The HTTP port over a real socket.

use std::net::SocketAddr;

use env::{Env, Task};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

use super::*;

/// A served port. Dropping it ends it.
struct Server {
    env: Env,
    address: SocketAddr,
    token: String,
    readiness: Readiness,
    checker: Checker,
    stop: oneshot::Sender<()>,
    served: Task<()>,
}

impl Server {
    async fn start() -> Self {
        let env = Env::system();
        let token = AdminToken::random(&env);
        let readiness = Readiness::new();
        let parts = HttpParts {
            env: env.clone(),
            metrics: Metrics::new(env.clone()),
            readiness: readiness.clone(),
            admin: Admin { db: kv::Database::memory(env.clone()), env: env.clone() },
            backup: None,
            resolver: None,
            fleet: Arc::new(crate::admin::cluster::Nowhere),
            checker: Checker::new(
                blob::BlobStore::embedded(kv::LargeValues::memory(env.clone()), env.clone())
                    .await
                    .unwrap(),
            ),
            token: token.clone(),
        };
        let checker = parts.checker.clone();
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = env.spawn(
            "http",
            serve(env.clone(), listener, router(parts), async move {
                let _dropped = stopped.await;
            }),
        );
        Self { env, address, token: token.reveal().to_owned(), readiness, checker, stop, served }
    }

    /// Sends bytes and reads the answer to its end.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.env.connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// One request with the token; status and JSON body.
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self
            .raw(&format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 authorization: Bearer {}\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                self.token,
                body.len()
            ))
            .await;
        (status(&answer), json_of(&answer))
    }

    async fn check(&self, request: (&str, &str, Value), expected: (u16, &str)) {
        let (method, path, body) = request;
        let (status, answer) = self.call(method, path, body).await;
        let code = answer["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((status, code), expected, "{method} {path}: {answer}");
        let told = answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty());
        assert_eq!(told, !code.is_empty());
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).expect("a status line").parse().unwrap()
}

fn json_of(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() }
}

#[tokio::test]
async fn domains_accounts_and_lists_by_http() {
    let server = Server::start().await;
    let ok = |status| (status, "");
    server.check(("POST", "/admin/v1/domains", json!({"domain": "example.org"})), ok(201)).await;
    let new = json!({"address": "alice@example.org", "password": "correct horse"});
    server.check(("POST", "/admin/v1/accounts", new.clone()), ok(201)).await;
    server.check(("POST", "/admin/v1/accounts", new), (409, "exists")).await;
    let alice = "/admin/v1/accounts/alice@example.org";
    let quota = json!({"quota_bytes": 1000});
    server.check(("PUT", &format!("{alice}/quota"), quota), ok(200)).await;
    let login = json!({"login": "disabled"});
    server.check(("PUT", &format!("{alice}/login"), login), ok(200)).await;
    let password = json!({"password": "battery staple"});
    server.check(("PUT", &format!("{alice}/password"), password), ok(204)).await;
    let (_, shown) = server.call("GET", alice, Value::Null).await;
    assert_eq!(shown["state"], "disabled");
    assert_eq!((&shown["quota_bytes"], &shown["used_bytes"]), (&json!(1000), &json!(0)));

    let alias = json!({"address": "info@example.org", "members": ["alice@example.org"]});
    server.check(("POST", "/admin/v1/aliases", alias), ok(201)).await;
    let member = "/admin/v1/aliases/info@example.org/members/bob%2Btag@example.com";
    server.check(("PUT", member, Value::Null), ok(200)).await;
    let (_, listed) = server.call("GET", "/admin/v1/aliases?limit=5", Value::Null).await;
    assert_eq!(listed["items"][0]["members"], json!(["alice@example.org", "bob+tag@example.com"]));
    server.check(("DELETE", member, Value::Null), ok(200)).await;
    let last = "/admin/v1/aliases/info@example.org/members/alice@example.org";
    server.check(("DELETE", last, Value::Null), (409, "no_target")).await;
    let group = "/admin/v1/groups/info@example.org";
    server.check(("GET", group, Value::Null), (409, "other_kind")).await;
    let target = json!({"target": "alice@example.org"});
    server.check(("PUT", "/admin/v1/domains/example.org/catch-all", target), ok(200)).await;

    server.check(("DELETE", "/admin/v1/domains/example.org", Value::Null), (409, "in_use")).await;
    server.check(("DELETE", "/admin/v1/aliases/info@example.org", Value::Null), ok(204)).await;
    server.check(("DELETE", alice, Value::Null), ok(204)).await;
    server.check(("GET", alice, Value::Null), (404, "missing")).await;
    server.check(("DELETE", "/admin/v1/domains/example.org", Value::Null), ok(204)).await;
}

#[tokio::test]
async fn bad_requests_are_refused_in_json() {
    let server = Server::start().await;
    server.check(("GET", "/admin/v1/nothing", Value::Null), (404, "no_route")).await;
    server.check(("GET", "/nothing", Value::Null), (404, "no_route")).await;
    server.check(("PATCH", "/admin/v1/domains", Value::Null), (405, "method_not_allowed")).await;
    server.check(("GET", "/admin/v1/domains/a%20b", Value::Null), (400, "bad_name")).await;
    server.check(("GET", "/admin/v1/domains?limit=x", Value::Null), (400, "bad_request")).await;
    server.check(("GET", "/admin/v1/accounts?after=x", Value::Null), (400, "bad_page")).await;
    let short = json!({"address": "a@example.org", "password": "short"});
    server.check(("POST", "/admin/v1/accounts", short), (400, "bad_password")).await;
    let unknown = json!({"domain": "example.org", "x": 1});
    server.check(("POST", "/admin/v1/domains", unknown), (422, "bad_request")).await;
    let large = json!({"domain": "x".repeat(crate::limits::HTTP_BODY_BYTES_MAX)});
    server.check(("POST", "/admin/v1/domains", large), (413, "bad_request")).await;
}

#[tokio::test]
async fn nothing_opens_the_api_but_the_token() {
    let server = Server::start().await;
    let token = server.token.clone();
    let wrong = AdminToken::random(&server.env).reveal().to_owned();
    let headers = [
        String::new(),
        format!("authorization: Bearer {wrong}\r\n"),
        "authorization: Bearer \r\n".to_owned(),
        "authorization: x\r\n".to_owned(),
        format!("authorization: Basic {token}\r\n"),
        format!("authorization: Bearer {}\r\n", &token[1..]),
    ];
    for header in &headers {
        for path in ["/admin/v1/domains", "/admin/v1/nothing"] {
            let answer = server
                .raw(&format!(
                    "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n"
                ))
                .await;
            assert_eq!(status(&answer), 401, "{header:?}");
            assert!(answer.contains("www-authenticate: Bearer\r\n"), "{answer}");
            assert_eq!(json_of(&answer)["error"]["code"], "unauthorized");
        }
    }
    let lower = format!(
        "GET /admin/v1/domains HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: bearer {token}\r\n\r\n"
    );
    assert_eq!(status(&server.raw(&lower).await), 200);
}

#[tokio::test]
async fn health_follows_the_phase() {
    let server = Server::start().await;
    let ready = async || server.call("GET", "/healthz/ready", Value::Null).await;
    assert_eq!(ready().await, (503, json!({"status": "starting"})));
    server.readiness.enter(Phase::Ready);
    assert_eq!(ready().await, (200, json!({"status": "ready"})));
    server.readiness.enter(Phase::Draining);
    assert_eq!(ready().await, (503, json!({"status": "draining"})));
    assert_eq!(server.call("GET", "/healthz/live", Value::Null).await.0, 200);
}

#[tokio::test]
async fn metrics_need_no_token() {
    let server = Server::start().await;
    let answer = server.raw("GET /metrics HTTP/1.0\r\n\r\n").await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(answer.contains("rookery_uptime_seconds "), "{answer}");
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let server = Server::start().await;
    let fill = "x".repeat(2 * crate::limits::HTTP_HEAD_BYTES_MAX);
    let mut stream = server.env.connect(server.address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nfill: {fill}\r\n\r\n");
    // The server may answer and close before it has read everything.
    let _cut_off = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || status(&answer) == 431, "{answer}");
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_then_the_server() {
    let server = Server::start().await;
    let mut idle = server.env.connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    server.stop.send(()).unwrap();
    server.served.await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(server.env.connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_check_answers_with_lines_one_at_a_time() {
    let server = Server::start().await;
    server.check(("POST", "/admin/v1/domains", json!({"domain": "example.org"})), (201, "")).await;
    let new = json!({"address": "alice@example.org", "password": "correct horse"});
    server.check(("POST", "/admin/v1/accounts", new), (201, "")).await;
    let path = "/admin/v1/fsck";
    server.check(("POST", path, json!({"account": "bob@example.org"})), (404, "missing")).await;
    server.check(("POST", path, json!({"speed": 0})), (400, "bad_speed")).await;
    for request in [json!({}), json!({"account": "alice@example.org", "repair": true})] {
        let body = request.to_string();
        let answer = server
            .raw(&format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 authorization: Bearer {}\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                server.token,
                body.len()
            ))
            .await;
        assert_eq!(status(&answer), 200, "{answer}");
        let lines: Vec<Value> = answer
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let last = lines.last().unwrap();
        assert_eq!((&last["type"], &last["findings"]), (&json!("done"), &json!(0)), "{answer}");
        assert_eq!(last["accounts"], 1);
    }
}

#[tokio::test]
async fn a_check_ends_when_the_node_drains_and_when_its_client_goes() {
    let server = Server::start().await;
    let ask = async || {
        let mut stream = server.env.connect(server.address).await.unwrap();
        let request = format!(
            "POST /admin/v1/fsck HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: 2\r\n\r\n{{}}",
            server.token
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    let held = server.checker.hold();
    let mut stream = ask().await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(
        (status(&answer), json_of(&answer)["error"]["code"].as_str()),
        (409, Some("checking"))
    );
    drop(held);
    // A client that goes away frees the place.
    drop(ask().await);
    server.checker.free().await;
    server.readiness.enter(Phase::Draining);
    let mut answer = String::new();
    ask().await.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(r#"{"type":"stopped""#), "{answer}");
}
