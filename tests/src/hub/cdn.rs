//! The second host: large files behind signed URLs. Must not know repositories; a path is content plus a name.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::header;

use super::{address, body::Sending, fault::Service, refusal::Refusal, state::Shared, stats::Host};

/// Answers every request to the CDN.
pub(super) async fn cdn(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = address::decode(request.uri().path());
    let authorization = request.headers().contains_key(header::AUTHORIZATION);
    shared.stats.request(Host::Cdn, request.method().as_str(), &path, authorization);
    tokio::time::sleep(shared.rules.latency(Service::Cdn, &path)).await;
    let response = serve(&shared, &request, path).unwrap_or_else(Refusal::into_response);
    shared.stats.status(Host::Cdn, response.status().as_u16());
    response
}

/// Paths are `/<repository>/blobs/<sha256>/<path of the file>`.
fn serve(shared: &Arc<Shared>, request: &Request, path: String) -> Result<Response, Refusal> {
    if request.headers().contains_key(header::AUTHORIZATION) {
        // As the storage behind the real hub does: a signed URL and a header are two credentials.
        return Err(Refusal::request("only one way of authentication is allowed; do not send the hub's token here"));
    }
    let plan = shared.rules.strike(Service::Cdn, request, &path)?;
    if !shared.is_signed(request.uri().path(), request.uri().query().unwrap_or_default()) {
        return Err(Refusal::unsigned());
    }
    let sha256 = path.split_once("/blobs/").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let content = shared.blob(sha256).ok_or_else(|| Refusal::entry(&path))?;
    let etag = sha256.to_owned();
    let sending = Sending { content, etag, plan, host: Host::Cdn, path, shared: shared.clone() };
    Ok(sending.answer(request.headers()))
}
