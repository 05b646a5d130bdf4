//! The election over real connections, against a server that keeps one Lease as an API server would.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;

const QUICK: Timing =
    Timing { lease: Duration::from_secs(1), renew_deadline: Duration::from_millis(400), retry: Duration::from_millis(40) };

#[derive(Default)]
struct Stored {
    lease: Option<Value>,
    version: u64,
    broken: bool,
}

type Shared = Arc<Mutex<Stored>>;

fn refuse(code: StatusCode) -> (StatusCode, Json<Value>) {
    let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "", "code": code.as_u16()});
    (code, Json(body))
}

async fn read(State(stored): State<Shared>) -> (StatusCode, Json<Value>) {
    let stored = stored.lock().unwrap();
    match &stored.lease {
        _ if stored.broken => refuse(StatusCode::INTERNAL_SERVER_ERROR),
        Some(lease) => (StatusCode::OK, Json(lease.clone())),
        None => refuse(StatusCode::NOT_FOUND),
    }
}

async fn write(State(stored): State<Shared>, Json(mut lease): Json<Value>) -> (StatusCode, Json<Value>) {
    let mut stored = stored.lock().unwrap();
    if stored.broken {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let known = stored.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone()).unwrap_or_default();
    if lease["metadata"]["resourceVersion"] != known {
        return refuse(StatusCode::CONFLICT);
    }
    stored.version += 1;
    lease["metadata"]["resourceVersion"] = stored.version.to_string().into();
    stored.lease = Some(lease.clone());
    (StatusCode::OK, Json(lease))
}

async fn server() -> (kube::Client, Shared) {
    let stored = Shared::default();
    let base = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
    let router = Router::new()
        .route(base, axum::routing::post(write))
        .route(&format!("{base}/substratus"), get(read).put(write))
        .with_state(stored.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (kube::Client::try_from(kube::Config::new(uri)).unwrap(), stored)
}

fn holder(stored: &Shared) -> String {
    stored.lock().unwrap().lease.as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

async fn lead(client: &kube::Client, identity: &str) -> Leadership {
    let acquired = acquire(client.clone(), identity, "ns", "substratus", QUICK);
    timeout(Duration::from_secs(10), acquired).await.expect("leadership in time")
}

#[tokio::test]
async fn a_released_lease_is_taken_without_waiting_for_its_end() {
    let (client, stored) = server().await;
    let first = lead(&client, "a").await;
    assert_eq!(holder(&stored), "a");
    first.release().await.unwrap();
    assert_eq!(holder(&stored), "");
    let started = Instant::now();
    let second = lead(&client, "b").await;
    assert!(started.elapsed() < QUICK.lease / 2, "took {:?}", started.elapsed());
    assert_eq!(holder(&stored), "b");
    drop(second);
}

#[tokio::test]
async fn a_second_candidate_waits_while_the_first_renews() {
    let (client, stored) = server().await;
    let first = lead(&client, "a").await;
    let second = acquire(client.clone(), "b", "ns", "substratus", QUICK);
    assert!(timeout(QUICK.lease * 2, second).await.is_err(), "two leaders at once");
    assert_eq!(holder(&stored), "a");
    drop(first);
}

#[tokio::test]
async fn a_holder_that_died_is_replaced() {
    let (client, stored) = server().await;
    let mut dead = lead(&client, "a").await;
    dead.stop.cancel();
    (&mut dead.renewing).await.unwrap();
    let second = lead(&client, "b").await;
    assert_eq!(holder(&stored), "b");
    assert_eq!(stored.lock().unwrap().lease.as_ref().unwrap()["spec"]["leaseTransitions"], 1);
    second.release().await.unwrap();
}

#[tokio::test]
async fn leadership_is_lost_before_others_may_take_it() {
    let (client, stored) = server().await;
    let leadership = lead(&client, "a").await;
    let lost = leadership.lost();
    stored.lock().unwrap().broken = true;
    let broken = Instant::now();
    timeout(QUICK.lease, lost).await.expect("lost while the lease still kept others away");
    assert!(broken.elapsed() + 2 * QUICK.retry >= QUICK.renew_deadline);
    stored.lock().unwrap().broken = false;
    leadership.release().await.unwrap();
    assert_eq!(holder(&stored), "a", "a lost lease is not touched again");
}

#[tokio::test]
async fn a_lease_that_was_stolen_is_lost_at_once_and_not_given_away() {
    let (client, stored) = server().await;
    let leadership = lead(&client, "a").await;
    {
        let mut stored = stored.lock().unwrap();
        stored.version += 1;
        let version = stored.version.to_string();
        let lease = stored.lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = "thief".into();
        lease["metadata"]["resourceVersion"] = version.into();
    }
    timeout(QUICK.lease, leadership.lost()).await.expect("lost");
    leadership.release().await.unwrap();
    assert_eq!(holder(&stored), "thief");
}
