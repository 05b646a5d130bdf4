//! Sources of images: a user's client sends them with a ticket, the pod that builds them takes them with its token. Knows nothing of
//! what becomes of them.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt as _;

use super::{Builder, Store, elsewhere};
use crate::uploads::Refusal;
use crate::uploads::ticket::{Subject, Ticket};

/// A client that sends nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(30);
/// And so is one that sends for so long: others wait for the room.
const LONGEST: Duration = Duration::from_hours(1);
/// Bytes that are read from the disk at once.
const CHUNK: usize = 256 * 1024;

/// A caller whose URL we signed.
pub(super) struct Ticketed(Ticket);

impl FromRequestParts<Store> for Ticketed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, store: &Store) -> Result<Self, Response> {
        let path = Path::<(String, String, String)>::from_request_parts(parts, store).await;
        let Path((kind, namespace, name)) = path.map_err(IntoResponse::into_response)?;
        let subject = Subject { kind, namespace, name };
        let refused = |why: String| (StatusCode::FORBIDDEN, format!("{why}\n")).into_response();
        if !subject.is_named_well() {
            return Err(refused("no object has such a name".to_owned()));
        }
        if store.stands_by() {
            return Err(elsewhere());
        }
        let query = parts.uri.query().unwrap_or_default();
        store.uploads.ticket(subject, query).map(Self).map_err(|why| refused(why.to_string()))
    }
}

/// `PUT /uploads/<kind>/<namespace>/<name>?<ticket>`: what the first operator's clients send to a signed URL of a bucket.
pub(super) async fn put(State(store): State<Store>, Ticketed(ticket): Ticketed, request: Request) -> Response {
    let size = match announced(request.headers(), &ticket) {
        Ok(size) => size,
        Err((status, why)) => return (status, format!("{why}\n")).into_response(),
    };
    let received = tokio::time::timeout(LONGEST, receive(&store, ticket, size, request)).await;
    match received.unwrap_or_else(|_| Err(Refusal::Differs(format!("it took more than {} minutes", LONGEST.as_secs() / 60)))) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn receive(store: &Store, ticket: Ticket, size: u64, request: Request) -> Result<(), Refusal> {
    let uploads = Arc::clone(&store.uploads);
    let mut incoming = uploads.begin(ticket, size)?;
    let mut body = request.into_body().into_data_stream();
    loop {
        let Ok(part) = tokio::time::timeout(STALLED, body.next()).await else {
            return Err(Refusal::Differs(format!("nothing came for {} s", STALLED.as_secs())));
        };
        match part {
            Some(Ok(bytes)) => incoming.write(&bytes)?,
            Some(Err(error)) => return Err(Refusal::Differs(format!("the body broke off: {error}"))),
            None => break,
        }
    }
    // It is written to the disk, whatever that takes.
    tokio::task::spawn_blocking(move || incoming.finish()).await.map_err(|error| Refusal::Disk(std::io::Error::other(error)))?
}

/// The bytes that a client says it sends: in the words of the first operator's, of which every one counts.
fn announced(headers: &HeaderMap, ticket: &Ticket) -> Result<u64, (StatusCode, String)> {
    let says = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if says(header::CONTENT_TYPE) != Some("application/octet-stream") {
        return Err((StatusCode::BAD_REQUEST, "send Content-Type: application/octet-stream".to_owned()));
    }
    let md5 = headers.get("content-md5").and_then(|value| BASE64_STANDARD.decode(value.as_bytes()).ok());
    if md5.map(hex::encode).as_deref() != Some(ticket.asked.md5.as_str()) {
        let why = "send Content-MD5: the MD5 of the body in base64, which spec.build.upload.md5Checksum has in hexadecimal";
        return Err((StatusCode::BAD_REQUEST, why.to_owned()));
    }
    let size = says(header::CONTENT_LENGTH).and_then(|value| value.parse().ok());
    size.ok_or_else(|| (StatusCode::LENGTH_REQUIRED, "send Content-Length".to_owned()))
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Differs(_) => StatusCode::BAD_REQUEST,
        Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Disk(error) => {
            tracing::error!(%error, "an upload is not kept");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let mut response = (status, format!("{refusal}\n")).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// `GET /uploads/<kind>/<namespace>/<name>/<md5>`, for the pod that builds it.
pub(super) async fn get(
    State(store): State<Store>,
    Builder(caller): Builder,
    Path((kind, namespace, name, md5)): Path<(String, String, String, String)>,
) -> Response {
    let subject = Subject { kind, namespace, name };
    if caller.namespace != subject.namespace {
        return (StatusCode::FORBIDDEN, "a builder takes sources of its own namespace only\n").into_response();
    }
    if !subject.is_named_well() || md5.len() != 32 || !md5.bytes().all(|b| b.is_ascii_hexdigit()) {
        return (StatusCode::BAD_REQUEST, "this is no name of an upload\n").into_response();
    }
    match store.uploads.open_file(&subject, &md5) {
        Ok(file) => Body::from_stream(chunks(file)).into_response(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && store.stands_by() => elsewhere(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            (StatusCode::NOT_FOUND, "the upload is not here any more\n").into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an upload is not served");
            (StatusCode::SERVICE_UNAVAILABLE, "the upload cannot be had now, try again\n").into_response()
        }
    }
}

/// The file in pieces, each as its reader is ready for it.
fn chunks(file: std::fs::File) -> impl futures::Stream<Item = std::io::Result<Vec<u8>>> {
    futures::stream::try_unfold(file, |mut file| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
            Ok::<_, std::io::Error>((chunk, file))
        });
        let (chunk, file) = read.await.map_err(std::io::Error::other)??;
        Ok((!chunk.is_empty()).then_some((chunk, file)))
    })
}
