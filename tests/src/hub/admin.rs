//! `/_hub/…`: faults and counters for whoever drives the hub from outside its process. Must not serve content.

use std::sync::Arc;

use axum::{
    Json,
    body::to_bytes,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{Method, StatusCode};

use super::{fault::Rule, refusal::Refusal, state::Shared};

/// Largest rule that is read.
const RULE: usize = 64 * 1024;

/// Answers `/_hub/<path>`.
pub(super) async fn answer(shared: &Arc<Shared>, path: String, request: Request) -> Response {
    let method = request.method().clone();
    match (method, path.as_str()) {
        (Method::GET, "health") => "ok\n".into_response(),
        (Method::GET, "stats") => Json(shared.stats.read()).into_response(),
        (Method::DELETE, "stats") => {
            shared.stats.reset();
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::GET, "faults") => Json(shared.rules.all()).into_response(),
        (Method::DELETE, "faults") => {
            shared.rules.clear();
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::POST, "faults") => match rule(request).await {
            Ok(rule) => {
                shared.rules.arm(rule);
                StatusCode::NO_CONTENT.into_response()
            }
            Err(refusal) => refusal.into_response(),
        },
        _ => Refusal::page(&path).into_response(),
    }
}

async fn rule(request: Request) -> Result<Rule, Refusal> {
    let body = to_bytes(request.into_body(), RULE).await.map_err(|error| Refusal::request(error.to_string()))?;
    serde_json::from_slice(&body).map_err(|error| Refusal::request(format!("cannot read the rule: {error}")))
}
