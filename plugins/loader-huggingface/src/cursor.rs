//! What one page hands to the next. The host keeps it as a text and gives it back unread; it knows no HTTP.

use serde::{Deserialize, Serialize};
use substratus_plugin::Failure;

use crate::{api, select::Choice};

/// Where to go on, and what the first page decided.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    pub(crate) commit: String,
    /// Path and query below the endpoint.
    pub(crate) page: String,
    /// Files of that page that an earlier answer held.
    pub(crate) skip: usize,
    pub(crate) choice: Choice,
}

impl Cursor {
    /// As text. Serialising plain strings cannot fail, but a failure would be ours.
    pub(crate) fn text(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::Internal(format!("writing a cursor: {error}")))
    }

    /// From a text we wrote.
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        let cursor: Self = serde_json::from_str(text).map_err(|error| Failure::Internal(format!("reading a cursor: {error}")))?;
        if cursor.page.starts_with("/api/models/") && api::is_page(&cursor.page) {
            return Ok(cursor);
        }
        Err(Failure::Internal(format!("reading a cursor: {:?} is no page of a listing", cursor.page)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_a_forged_one_does_not() {
        let cursor = Cursor { commit: "c".into(), page: "/api/models/a?cursor=x".into(), skip: 0, choice: Choice::default() };
        assert_eq!(Cursor::read(&cursor.text().unwrap()).unwrap(), cursor);
        let forged = Cursor { page: "@evil.example/".into(), ..cursor };
        assert!(Cursor::read(&forged.text().unwrap()).is_err());
        assert!(Cursor::read("{}").is_err());
    }
}
