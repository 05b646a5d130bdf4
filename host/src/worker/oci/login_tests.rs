//! Tests of logins against registries and realms on loopback.

use std::sync::Mutex as StdMutex;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::*;
use crate::plugin::GrantedSecret;
use crate::worker::egress::Patience;
use crate::worker::secrets::Secrets;

/// What the server saw: path with query, and who was shown.
type Seen = Arc<StdMutex<Vec<(String, Option<String>)>>>;

#[derive(Clone)]
struct Server {
    seen: Seen,
    /// What stands in the challenge; `HOST` is the server itself.
    challenge: String,
    host: String,
}

/// A registry that gives blobs to who shows `Bearer good`, and a realm that gives it to `u:p`, or Basic alone.
async fn server(challenge: &str) -> (String, Seen) {
    async fn answer(State(server): State<Server>, request: Request) -> Response {
        let shown = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        let target = request.uri().path_and_query().unwrap().as_str().to_owned();
        server.seen.lock().unwrap().push((target, shown.clone()));
        let good = ["Bearer good", "Basic dTpw"];
        match request.uri().path() {
            "/token" if shown.as_deref() == Some("Basic dTpw") => r#"{"token": "good"}"#.into_response(),
            "/token" => StatusCode::UNAUTHORIZED.into_response(),
            _ if shown.is_some_and(|shown| good.contains(&shown.as_str())) => "ok".into_response(),
            _ => {
                let challenge = server.challenge.replace("HOST", &server.host);
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response()
            }
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let server = Server { seen: Seen::default(), challenge: challenge.to_owned(), host: host.clone() };
    let seen = Arc::clone(&server.seen);
    let router = Router::new().fallback(answer).with_state(server);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (host, seen)
}

fn egress(hosts: &[String], accounts: Accounts) -> Egress {
    let secret =
        GrantedSecret { name: "registry".into(), env: Vec::new(), scheme: SecretScheme::Registry, hosts: hosts.to_vec() };
    let grant = Grant { hosts: hosts.to_vec(), secrets: vec![secret], ..Grant::default() };
    let logins = Logins::to_pull(&grant, accounts).unwrap();
    Egress::new(&grant.hosts, Secrets::default(), Patience::default()).unwrap().with_logins(logins)
}

fn account(host: &str, password: &str) -> Accounts {
    Accounts::at(host, RegistryAuth::Basic { username: "u".into(), password: password.into() })
}

async fn get(egress: &Egress, host: &str) -> Result<u16, EgressError> {
    let url = Url::parse(&format!("http://{host}/v2/team/model/manifests/v1")).unwrap();
    let (headers, own) = (HeaderMap::new(), HeaderMap::new());
    let ask = Ask { method: Method::GET, url, headers, own, body: None, auth: Some("registry"), follow: true };
    Ok(egress.send(ask).await?.response.status().as_u16())
}

const BEARER: &str = "Bearer realm=\"http://HOST/token\",service=\"a, b\"";

#[tokio::test]
async fn a_token_is_asked_for_once_and_shown_from_then_on() {
    let (host, seen) = server(BEARER).await;
    let egress = egress(&[format!("http://{host}")], account(&host, "p"));
    assert_eq!((get(&egress, &host).await.unwrap(), get(&egress, &host).await.unwrap()), (200, 200));
    let seen = seen.lock().unwrap().clone();
    let token = ("/token?service=a%2C+b&scope=repository%3Ateam%2Fmodel%3Apull".to_owned(), Some("Basic dTpw".to_owned()));
    let blob = |shown: Option<&str>| ("/v2/team/model/manifests/v1".to_owned(), shown.map(str::to_owned));
    assert_eq!(seen, [blob(None), token, blob(Some("Bearer good")), blob(Some("Bearer good"))]);
}

#[tokio::test]
async fn a_plain_challenge_gets_the_account_and_a_wrong_one_is_not_shown_twice() {
    let (host, seen) = server("Basic realm=\"x\"").await;
    assert_eq!(get(&egress(&[format!("http://{host}")], account(&host, "p")), &host).await.unwrap(), 200);
    assert_eq!(seen.lock().unwrap().len(), 2);
    let wrong = egress(&[format!("http://{host}")], account(&host, "wrong"));
    assert_eq!(get(&wrong, &host).await.unwrap(), 401);
    assert_eq!(get(&egress(&[format!("http://{host}")], Accounts::default()), &host).await.unwrap(), 401);
    assert_eq!(seen.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn an_account_goes_to_no_other_registry() {
    let (host, seen) = server("Basic realm=\"x\"").await;
    assert_eq!(get(&egress(&[format!("http://{host}")], account("other.example", "p")), &host).await.unwrap(), 401);
    assert!(seen.lock().unwrap().iter().all(|(_, shown)| shown.is_none()));
}

#[tokio::test]
async fn a_realm_is_a_host_like_any_other() {
    for realm in ["http://169.254.169.254/latest", "https://elsewhere.example/token", "file:///etc/passwd"] {
        let (host, _) = server(&format!("Bearer realm=\"{realm}\"")).await;
        let error = get(&egress(&[format!("http://{host}")], account(&host, "p")), &host).await.unwrap_err();
        assert!(
            matches!(&error, EgressError::Denied(text) if text.contains("is not among the granted hosts")),
            "{realm}: {error}"
        );
    }
}

#[test]
fn accounts_come_from_the_files_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Accounts::read(&folder.path().join("none")).unwrap().files.is_empty());
    std::fs::write(folder.path().join("a.json"), r#"{"auths": {"one.example": {"auth": "dTpw"}}}"#).unwrap();
    std::fs::write(
        folder.path().join("b.json"),
        r#"{"auths": {"two.example:443": {"auth": "dTpx"}, "one.example": {"auth": "eDp5"}}}"#,
    )
    .unwrap();
    let accounts = Accounts::read(folder.path()).unwrap();
    let of = |url: &str| match accounts.of(&Url::parse(url).unwrap()).unwrap() {
        RegistryAuth::Basic { password, .. } => password,
        RegistryAuth::Anonymous => String::new(),
    };
    assert_eq!(of("https://one.example/v2/"), "p", "the first file counts");
    assert_eq!((of("https://two.example/v2/").as_str(), of("http://two.example/v2/").as_str()), ("q", ""));
    assert!(!format!("{accounts:?}").contains("dTpw"));
    std::fs::write(folder.path().join("c.json"), "no JSON").unwrap();
    let broken = Accounts::read(folder.path()).unwrap().of(&Url::parse("https://three.example/").unwrap());
    assert!(broken.is_err_and(|error| error.to_string().contains("c.json")));
}

#[test]
fn challenges_are_read_in_every_spelling() {
    let read = |texts: &[&'static str]| {
        let values = texts.iter().copied().map(HeaderValue::from_static);
        challenge(&values.map(|value| (WWW_AUTHENTICATE, value)).collect())
    };
    let bearer =
        |service: Option<&str>| Some(Challenge::Bearer { realm: "https://r/t".to_owned(), service: service.map(str::to_owned) });
    assert_eq!(read(&["Bearer realm=\"https://r/t\",service=\"s\",scope=\"a,b\""]), bearer(Some("s")));
    assert_eq!(read(&["bearer service=s, realm=\"https://r/t\""]), bearer(Some("s")));
    assert_eq!(read(&["Basic realm=\"x\"", "Bearer realm=\"https://r/t\""]), bearer(None));
    assert_eq!(read(&["Basic"]), Some(Challenge::Basic));
    assert_eq!(read(&["Digest realm=\"x\""]), None);
    assert_eq!(read(&["Bearer service=\"s\""]), None);
    assert_eq!(read(&[]), None);
}

#[test]
fn the_repository_is_what_lies_before_the_last_part() {
    let of = |path: &str| repository(&Url::parse(&format!("https://r{path}")).unwrap()).map(str::to_owned);
    assert_eq!(of("/v2/a/b/blobs/sha256:00").as_deref(), Some("a/b"));
    assert_eq!(of("/v2/a/blobs/c/manifests/v1").as_deref(), Some("a/blobs/c"));
    assert_eq!(of("/v2/"), None);
    assert_eq!(of("/elsewhere"), None);
}
