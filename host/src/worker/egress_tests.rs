//! Tests of the egress against servers on loopback.

use std::ffi::OsString;
use std::sync::Mutex;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::*;
use crate::plugin::{Grant, GrantedSecret, SecretScheme};

/// What a server saw.
type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// A server that redirects `/to?URL`, stays silent at `/silent`, and answers everything else with `ok`.
async fn server() -> (u16, Seen) {
    async fn answer(State(seen): State<Seen>, request: Request) -> Response {
        seen.lock().unwrap().push((request.uri().path().to_owned(), request.headers().clone()));
        match (request.uri().path(), request.uri().query()) {
            ("/to", Some(target)) => (StatusCode::FOUND, [(LOCATION, target.to_owned())]).into_response(),
            ("/round", _) => (StatusCode::FOUND, [(LOCATION, "/round".to_owned())]).into_response(),
            ("/silent", _) => std::future::pending().await,
            ("/many", _) => {
                let mut response = "ok".into_response();
                for number in 0..500 {
                    response
                        .headers_mut()
                        .insert(HeaderName::try_from(format!("x-{number}")).unwrap(), HeaderValue::from_static("1"));
                }
                response
            }
            ("/long", _) => ([("x-long", "x".repeat(1 << 20))], "ok").into_response(),
            _ => "ok".into_response(),
        }
    }
    let seen = Seen::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (port, seen)
}

fn egress(hosts: &[String], secret_hosts: &[String]) -> Egress {
    let secret =
        GrantedSecret { name: "hf".into(), env: vec!["T".into()], scheme: SecretScheme::Bearer, hosts: secret_hosts.to_vec() };
    let grant = Grant { hosts: hosts.to_vec(), secrets: vec![secret], ..Grant::default() };
    let secrets = Secrets::from_env(&grant, [(OsString::from("T"), OsString::from("hf_secret"))]).unwrap();
    let patience = Patience { connect: Duration::from_secs(2), stall: Duration::from_millis(300) };
    Egress::new(&grant.hosts, secrets, patience).unwrap()
}

fn get(url: &str) -> Ask<'static> {
    Ask {
        method: Method::GET,
        url: Url::parse(url).unwrap(),
        headers: guest_headers(&[("x-guest".into(), "1".into()), ("accept".into(), "a/b".into())]).unwrap(),
        own: HeaderMap::from_iter([(http::header::RANGE, HeaderValue::from_static("bytes=0-1"))]),
        body: None,
        auth: Some("hf"),
        follow: true,
    }
}

#[tokio::test]
async fn a_credential_goes_to_its_host_and_no_further() {
    let ((hub, hub_seen), (cdn, cdn_seen)) = (server().await, server().await);
    let (hub, cdn) = (format!("http://127.0.0.1:{hub}"), format!("http://127.0.0.1:{cdn}"));
    // Even a host that may get the secret when asked directly does not get it by a redirect.
    let egress = egress(&[hub.clone(), cdn.clone()], &[hub.clone(), cdn.clone()]);
    let answer = egress.send(get(&format!("{hub}/to?{cdn}/file"))).await.unwrap();
    assert_eq!(answer.url.as_str(), format!("{cdn}/file"));
    let first = hub_seen.lock().unwrap()[0].1.clone();
    assert_eq!((first[AUTHORIZATION].to_str().unwrap(), first.contains_key("x-guest")), ("Bearer hf_secret", true));
    let second = cdn_seen.lock().unwrap()[0].1.clone();
    assert!(
        !second.contains_key(AUTHORIZATION)
            && !second.contains_key("x-guest")
            && second.contains_key("range")
            && second.contains_key("accept")
    );
    egress.send(get(&format!("{hub}/to?/here"))).await.unwrap();
    assert!(hub_seen.lock().unwrap()[2].1.contains_key(AUTHORIZATION), "a redirect within the host keeps it");
}

#[tokio::test]
async fn a_host_that_may_not_get_the_secret_does_not_get_it() {
    let (port, seen) = server().await;
    let host = format!("http://127.0.0.1:{port}");
    egress(std::slice::from_ref(&host), &["https://huggingface.co".into()]).send(get(&host)).await.unwrap();
    assert!(!seen.lock().unwrap()[0].1.contains_key(AUTHORIZATION));
}

#[tokio::test]
async fn hosts_that_are_not_granted_are_not_connected_to() {
    let ((hub, _), (other, other_seen)) = (server().await, server().await);
    let hub = format!("http://127.0.0.1:{hub}");
    let egress = egress(std::slice::from_ref(&hub), &[]);
    for url in [
        format!("http://127.0.0.1:{other}/x"),
        format!("{hub}/to?http://127.0.0.1:{other}/x"),
        format!("{hub}/to?http://169.254.169.254/"),
    ] {
        let error = egress.send(get(&url)).await.unwrap_err();
        assert!(matches!(&error, EgressError::Denied(text) if text.contains("grant `http://")), "{url}: {error}");
    }
    assert!(other_seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_needs_to_be_named() {
    let (port, seen) = server().await;
    // `localhost` stands for any public-looking name that resolves to a private address.
    let named = egress(&[format!("http://localhost:{port}")], &[]);
    named.send(get(&format!("http://localhost:{port}/"))).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
    let mut wild = named.clone();
    wild.named = wild.public.clone();
    let error = wild.send(get(&format!("http://localhost:{port}/"))).await.unwrap_err();
    assert!(matches!(&error, EgressError::Denied(text) if text.contains("is private")), "{error}");
    assert_eq!(seen.lock().unwrap().len(), 1, "nothing was connected to");
}

#[tokio::test]
async fn errors_hold_no_secret_and_no_signature() {
    let (port, _) = server().await;
    let host = format!("http://127.0.0.1:{port}");
    let egress = egress(std::slice::from_ref(&host), std::slice::from_ref(&host));
    let silent = egress.send(get(&format!("{host}/silent?X-Signature=s3cr3t"))).await.unwrap_err();
    assert!(
        matches!(&silent, EgressError::Unavailable(text) if text.contains("in time") && !text.contains("s3cr3t")),
        "{silent}"
    );
    let round = egress.send(get(&format!("{host}/round"))).await.unwrap_err();
    assert!(matches!(round, EgressError::Limit(_)), "{round}");
    assert_eq!(egress.redact("a hf_secret b"), "a [redacted] b");
}

#[tokio::test]
async fn answers_with_headers_without_end_are_not_taken() {
    let (port, _) = server().await;
    let host = format!("http://127.0.0.1:{port}");
    let egress = egress(std::slice::from_ref(&host), std::slice::from_ref(&host));
    for path in ["many", "long"] {
        let error = egress.send(get(&format!("{host}/{path}"))).await.unwrap_err();
        assert!(matches!(&error, EgressError::Unavailable(text) if text.contains(&host)), "{path}: {error}");
        egress.send(get(&host)).await.unwrap();
    }
}

#[test]
fn headers_that_are_ours_are_refused() {
    for name in ["Authorization", "cookie", "HOST", "Proxy-Authorization", "Content-Length", "transfer-encoding"] {
        assert!(matches!(guest_headers(&[(name.into(), "x".into())]), Err(EgressError::Denied(_))), "{name}");
    }
    assert!(matches!(guest_headers(&[("a b".into(), "x".into())]), Err(EgressError::Invalid(_))));
    assert!(matches!(guest_headers(&[("a".into(), "x\r\ny: z".into())]), Err(EgressError::Invalid(_))));
}
