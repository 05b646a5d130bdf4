//! What a store's refusals mean for the user, by its code where it has one and by the kind of answer where not. Pure; knows no
//! artifact and no file.

use object_store::Error;

use super::sink::{SinkError, Trouble};
use crate::causes;

/// Bytes of a store's own words that are kept.
const WORDS: usize = 300;

/// What an error means for the user; `doing` is what was tried, and where. The store's code and its sentence are kept, and nothing
/// else of its answer: some stores repeat what was signed.
pub(super) fn explain(doing: &str, error: &Error) -> SinkError {
    let text = error.to_string();
    let code = code(&text);
    let (trouble, message) = match code {
        // Azure has no uploads, only blocks that were sent and belong to nothing yet: one that it does not know is gone.
        "NoSuchUpload" | "InvalidBlockList" => (Trouble::Gone, format!("{doing}: the upload in parts is gone; it begins again")),
        "NoSuchBucket" | "ContainerNotFound" => {
            (Trouble::Missing, format!("{doing}: the bucket does not exist; create it, or correct the bucket's URL or endpoint"))
        }
        "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" => (
            Trouble::Denied,
            format!("{doing}: the credentials have expired ({code}); renew the Secret, or let workload identity renew them"),
        ),
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "XAdminUserNotFound"
        | "InvalidToken"
        | "InvalidClientTokenId"
        | "InvalidAuthenticationInfo"
        | "AuthenticationRequired"
        | "AuthenticationFailed" => {
            (Trouble::Denied, format!("{doing}: the credentials are wrong ({code}); correct the access key and its secret"))
        }
        "AccessDenied" | "AuthorizationFailure" | "AuthorizationPermissionMismatch" => (
            Trouble::Denied,
            format!("{doing}: the credentials may not do this ({code}); they need to list, read, write and remove objects there"),
        ),
        "RequestTimeTooSkewed" => {
            (Trouble::Denied, format!("{doing}: the clocks of node and store differ ({code}); set the node's clock"))
        }
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            let region = element(&text, "Region").map(|region| format!(" to {region}")).unwrap_or_default();
            (Trouble::Settings, format!("{doing}: the bucket is in another region ({code}); set AWS_REGION{region}"))
        }
        _ if text.contains("incorrectly configured region") => {
            (Trouble::Settings, format!("{doing}: the bucket is in another region; set AWS_REGION to where it is"))
        }
        _ => return by_kind(doing, code, &text, error),
    };
    SinkError::Store(trouble, message)
}

/// By the kind of answer, where its code says nothing.
fn by_kind(doing: &str, code: &str, text: &str, error: &Error) -> SinkError {
    let said = match (code, element(text, "Message")) {
        ("", _) => cut(&causes::innermost(error)),
        (code, Some(words)) => format!("{code}, {}", cut(words)),
        (code, None) => code.to_owned(),
    };
    let unasked = ["169.254.", "metadata.google.internal", "No credentials"].iter().any(|word| text.contains(word));
    let (trouble, hint) = match error {
        _ if unasked => (
            Trouble::Denied,
            "there are no credentials; name a Secret with BUCKET_SECRET, or bind the service account to an identity of the cloud",
        ),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            (Trouble::Denied, "the credentials may not do this; they need to list, read, write and remove objects there")
        }
        Error::NotFound { .. } => (Trouble::Missing, "it is not there"),
        Error::NotSupported { .. } | Error::NotImplemented { .. } => (Trouble::Settings, "the store does not know this request"),
        _ => (Trouble::Passing, "it is tried again later"),
    };
    SinkError::Store(trouble, format!("{doing}: {said}; {hint}"))
}

/// There is no such object. A bucket that is missing answers with the same status.
pub(super) fn is_missing_object(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && !matches!(code(&error.to_string()), "NoSuchBucket" | "ContainerNotFound")
}

/// The object is too large to be copied in one request: S3 does that up to 5 GiB. Not every store says it by the same code.
pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(code(&error.to_string()), "InvalidRequest" | "EntityTooLarge")
}

fn code(text: &str) -> &str {
    element(text, "Code").or_else(|| element(text, "code")).unwrap_or_default()
}

/// The text of an element of a store's XML.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(inside, _)| inside)
}

pub(super) fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(WORDS)).unwrap_or_default().to_owned()
}
