//! What the hub's refusals mean. The status alone misleads: the headers `x-error-code` and `x-error-message` decide.

use substratus_plugin::{
    Failure,
    http::{Response, header},
};

use crate::reference::Repo;

/// Turns an answer that is not a success into a failure that the user or the host can act on. `what` names the thing asked for.
pub(crate) fn failure(repo: &Repo, response: &Response, what: &str) -> Failure {
    let code = header(response, "x-error-code").unwrap_or_default();
    let message = header(response, "x-error-message").unwrap_or_default();
    let says = |text: &str| message.contains(text) || body_says(response, text);
    let (id, endpoint) = (&repo.id, &repo.endpoint);
    if says("Access to this resource is disabled") {
        return disabled(repo);
    }
    match (response.status, code) {
        // 401 to who shows no token, 403 to who shows one and was not let in.
        (401, "GatedRepo") => Failure::NeedsAuth(format!("{id} is gated: ask for access at {}, and show a token", repo.page())),
        (403, "GatedRepo") => Failure::Gated(repo.page()),
        (401, _) if says("Invalid credentials in Authorization header") => Failure::NeedsAuth(format!(
            "the token given as HF_TOKEN is not valid at {endpoint}: make a new one at {endpoint}/settings/tokens"
        )),
        (401, _) | (404, "RepoNotFound") => Failure::NotFound(format!(
            "{id} does not exist at {endpoint}, or is private and the token may not read it: check the name, or give the env \
             HF_TOKEN from a Secret with a token of {endpoint}/settings/tokens"
        )),
        (404, "RevisionNotFound") => Failure::NotFound(format!("{id} has no revision {:?}", repo.revision)),
        (404, "EntryNotFound") => Failure::NotFound(format!("{id} has no {what} at revision {:?}", repo.revision)),
        (404, _) => Failure::NotFound(format!("{what} of {id} at {endpoint}")),
        // A token is there: without one it is 401.
        (403, _) => Failure::Forbidden(format!(
            "the token given as HF_TOKEN may not read {id}: give it read access to this repository at {endpoint}/settings/tokens{}",
            if message.is_empty() { String::new() } else { format!(" ({})", short(message)) }
        )),
        (429, _) => Failure::RateLimited(seconds(response)),
        (408 | 425 | 500..=599, _) => Failure::Unavailable(format!("{endpoint} answered {} to {what} of {id}", response.status)),
        (status, _) => Failure::Internal(format!("{endpoint} answered {status} to {what} of {id}")),
    }
}

/// The hub took it down.
pub(crate) fn disabled(repo: &Repo) -> Failure {
    Failure::Disabled(format!("{} was disabled by {}: choose another repository", repo.id, repo.endpoint))
}

/// How long to wait: `t` of `RateLimit: "api";r=0;t=55` once nothing remains, else `Retry-After` in seconds.
fn seconds(response: &Response) -> Option<u32> {
    let member = |name: &str| -> Option<u32> {
        let limit = header(response, "ratelimit")?;
        limit.split(';').find_map(|part| part.trim().strip_prefix(name)?.parse().ok())
    };
    let window = if member("r=") == Some(0) { member("t=") } else { None };
    let retry = || header(response, "retry-after")?.trim().parse().ok();
    window.or_else(retry)
}

/// The hub repeats its message in the body; only a short look at it, it may be a page.
fn body_says(response: &Response, text: &str) -> bool {
    let start = response.body.get(..4096).unwrap_or(&response.body);
    String::from_utf8_lossy(start).contains(text)
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo() -> Repo {
        Repo { endpoint: "https://hub.example".into(), id: "org/name".into(), revision: "main".into() }
    }

    fn answered(status: u16, headers: &[(&str, &str)], body: &str) -> Failure {
        let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        failure(&repo(), &Response { status, headers, body: body.as_bytes().to_vec() }, "config.json")
    }

    #[test]
    fn the_table() {
        let gated = Failure::Gated("https://hub.example/org/name".into());
        let no_token = answered(401, &[("x-error-code", "GatedRepo")], "");
        assert!(matches!(no_token, Failure::NeedsAuth(text) if text.contains("https://hub.example/org/name")));
        assert_eq!(answered(403, &[("x-error-code", "GatedRepo")], ""), gated);
        assert!(matches!(answered(401, &[("x-error-code", "RepoNotFound")], ""), Failure::NotFound(_)));
        assert!(matches!(answered(401, &[], ""), Failure::NotFound(_)));
        let bad_token = [("x-error-message", "Invalid credentials in Authorization header")];
        assert!(matches!(answered(401, &bad_token, ""), Failure::NeedsAuth(_)));
        let in_body = r#"{"error":"Invalid credentials in Authorization header"}"#;
        assert!(matches!(answered(401, &[], in_body), Failure::NeedsAuth(_)));
        for code in ["RepoNotFound", "RevisionNotFound", "EntryNotFound"] {
            assert!(matches!(answered(404, &[("x-error-code", code)], ""), Failure::NotFound(_)), "{code}");
        }
        let disabled = [("x-error-message", "Access to this resource is disabled.")];
        assert!(matches!(answered(403, &disabled, ""), Failure::Disabled(text) if text.contains("disabled")));
        assert!(matches!(answered(403, &[], ""), Failure::Forbidden(_)));
        assert!(matches!(answered(416, &[], ""), Failure::Internal(_)));
        for status in [500, 502, 503, 504] {
            assert!(matches!(answered(status, &[], ""), Failure::Unavailable(_)), "{status}");
        }
    }

    #[test]
    fn rate_limits() {
        for (headers, expected) in [
            (vec![("ratelimit", "\"api\";r=0;t=55")], Some(55)),
            (vec![("ratelimit", "\"api\";r=3;t=55")], None),
            (vec![("ratelimit", "\"api\";r=3;t=55"), ("retry-after", "7")], Some(7)),
            (vec![("retry-after", "12")], Some(12)),
            (vec![("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], None),
            (vec![], None),
        ] {
            assert_eq!(answered(429, &headers, ""), Failure::RateLimited(expected), "{headers:?}");
        }
    }
}
