//! The hub's front door: tells the parts of the API apart, redirects renamed repositories, hands out small files and
//! sends clients to the CDN for large ones. Must not know how listings look.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    address::{self, Address, Ask},
    admin, api,
    body::Sending,
    fault::{Plan, Service},
    published::{Published, What},
    refusal::Refusal,
    repo::{Gated, Kind},
    state::{Caller, Found, Shared, may_read},
    stats::Host,
    tree,
};

/// What stays as it is in a path.
const PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Answers every request to the hub.
pub(super) async fn hub(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = address::decode(request.uri().path());
    if let Some(rest) = path.strip_prefix("/_hub/") {
        return admin::answer(&shared, rest.to_owned(), request).await;
    }
    let authorization = request.headers().contains_key(header::AUTHORIZATION);
    shared.stats.request(Host::Hub, request.method().as_str(), &path, authorization);
    let response = serve(&shared, request, path).await.unwrap_or_else(Refusal::into_response);
    shared.stats.status(Host::Hub, response.status().as_u16());
    response
}

async fn serve(shared: &Arc<Shared>, request: Request, path: String) -> Result<Response, Refusal> {
    let service = if path.starts_with("/api/") { Service::Api } else { Service::Resolve };
    tokio::time::sleep(shared.rules.latency(service, &path)).await;
    let plan = shared.rules.strike(service, &request, &path)?;
    if let Some(kind) = address::search(&path) {
        let caller = shared.caller(request.headers())?;
        return Ok(api::search(shared.visible(kind, &caller).iter(), request.uri().query()));
    }
    let Address { kind, id, ask } = address::parse(request.uri().path()).ok_or_else(|| Refusal::page(&path))?;
    let caller = shared.caller(request.headers())?;
    let repo = match shared.find(kind, &id, &caller)? {
        Found::Here(repo) => repo,
        Found::MovedTo(to) => return moved(&request, &id, &to),
    };
    match ask {
        Ask::Info { revision } => api::info(&repo, revision.as_deref().unwrap_or("main"), request.uri().query()),
        Ask::Refs => Ok(api::refs(&repo)),
        Ask::Tree { revision, path } => tree::tree(shared, &repo, &revision, &path, &request),
        Ask::PathsInfo { revision } => tree::paths_info(&repo, &revision, request).await,
        Ask::Resolve { revision, path: file } => {
            let wanted = Wanted { revision, file, path };
            resolve(shared, &repo, &caller, wanted, plan, request.headers())
        }
    }
}

/// A relative redirect to the same URL under the new name.
fn moved(request: &Request, from: &str, to: &str) -> Result<Response, Refusal> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let location = target.replacen(from, to, 1);
    let location = HeaderValue::from_str(&location).map_err(|_| Refusal::page(target))?;
    Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response())
}

struct Wanted {
    revision: String,
    file: String,
    /// The request's path, for the counters.
    path: String,
}

fn resolve(
    shared: &Arc<Shared>,
    repo: &Published,
    caller: &Caller,
    wanted: Wanted,
    plan: Plan,
    request: &HeaderMap,
) -> Result<Response, Refusal> {
    if repo.gated != Gated::No && !may_read(repo, caller) {
        return Err(Refusal::gated(caller.is_some(), &repo.id));
    }
    let commit = repo.commit(&wanted.revision).ok_or_else(|| Refusal::revision(&wanted.revision))?;
    let entry = commit.entry(&wanted.file).ok_or_else(|| Refusal::entry(&wanted.file))?;
    let mut response = match &entry.what {
        What::Directory => return Err(Refusal::entry(&wanted.file)),
        What::Small(content) => {
            let (content, etag, path) = (content.clone(), entry.oid.clone(), wanted.path);
            let sending = Sending { content, etag, plan, host: Host::Hub, path, shared: shared.clone() };
            sending.answer(request)
        }
        What::Large { sha256, .. } => {
            let prefix = if repo.kind == Kind::Dataset { "/datasets" } else { "" };
            let path = format!("{prefix}/{}/blobs/{sha256}/{}", repo.id, entry.path);
            let location = shared.sign(&utf8_percent_encode(&path, &PATH).to_string());
            let headers = [
                (header::LOCATION.as_str(), location.clone()),
                (header::ETAG.as_str(), format!("\"{sha256}\"")),
                (header::ACCEPT_RANGES.as_str(), "bytes".to_owned()),
                ("x-linked-etag", format!("\"{sha256}\"")),
                ("x-linked-size", entry.size().to_string()),
            ];
            let body = format!("Found. Redirecting to {location}");
            (StatusCode::FOUND, axum::response::AppendHeaders(headers), body).into_response()
        }
    };
    if let Ok(sha) = HeaderValue::from_str(&commit.sha) {
        response.headers_mut().insert("x-repo-commit", sha);
    }
    Ok(response)
}
