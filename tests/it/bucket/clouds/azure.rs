//! What only Azure has: shared access signatures, and the identity that its webhook gives to pods.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http::StatusCode;
use http::header::AUTHORIZATION;

use super::*;

#[derive(Default)]
struct Asked {
    tokens: Mutex<Vec<(String, String)>>,
    blobs: Mutex<Vec<Option<String>>>,
}

/// Gives tokens as Entra does, and has an empty container.
async fn authority_and_store(State(asked): State<Arc<Asked>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.uri.path().ends_with("/oauth2/v2.0/token") {
        let form = String::from_utf8_lossy(&to_bytes(body, 65_536).await.unwrap()).into_owned();
        asked.tokens.lock().unwrap().push((head.uri.path().to_owned(), form));
        return r#"{"access_token":"a-token-of-the-cloud","expires_in":3600}"#.into_response();
    }
    let credential = head.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    asked.blobs.lock().unwrap().push(credential);
    if head.uri.query().is_some_and(|query| query.contains("comp=list")) {
        return "<?xml version=\"1.0\"?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>".into_response();
    }
    (StatusCode::NOT_FOUND, "<Error><Code>BlobNotFound</Code></Error>").into_response()
}

/// The variables are those that the webhook puts into pods with the label: documented by Azure AD Workload Identity.
#[test]
fn the_identity_that_the_webhook_gives_to_a_pod_is_what_the_store_is_asked_with() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let asked = Arc::new(Asked::default());
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(any(authority_and_store)).with_state(Arc::clone(&asked));
    runtime.spawn(async move { axum::serve(listener, router).await });
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("azure-identity-token");
    std::fs::write(&token, "a-token-of-the-cluster").unwrap();
    let mut stage = Command::new(program());
    stage.args(["stage", "az://artifacts/model", "--or-empty", "-o", "json", "--to"]).arg(folder.path().join("staged"));
    stage.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    stage.env("AZURE_CLIENT_ID", "the-client").env("AZURE_TENANT_ID", "the-tenant").env("AZURE_FEDERATED_TOKEN_FILE", &token);
    // With its slash at the end, as the webhook says it.
    stage.env("AZURE_AUTHORITY_HOST", format!("{url}/")).env("AZURE_ALLOW_HTTP", "true");
    stage.env("AZURE_STORAGE_ACCOUNT_NAME", "account").env("AZURE_STORAGE_ENDPOINT", &url);
    let done = ended(stage);
    done.assert_complete();
    let tokens = asked.tokens.lock().unwrap().clone();
    let (path, form) = tokens.first().unwrap();
    assert_eq!(path, "/the-tenant/oauth2/v2.0/token");
    assert!(form.contains("client_assertion=a-token-of-the-cluster") && form.contains("client_id=the-client"), "{form}");
    let blobs = asked.blobs.lock().unwrap().clone();
    assert!(!blobs.is_empty() && blobs.iter().all(|found| found.as_deref() == Some("Bearer a-token-of-the-cloud")), "{blobs:?}");
    assert!(!done.everything.contains("a-token-of"), "a token shows: {}", done.everything);
}
