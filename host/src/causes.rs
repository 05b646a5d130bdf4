//! How an error and what it comes from are told in a line. Knows no error in particular.

use std::error::Error;

/// An error with its causes, the outermost first.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

/// The cause that has no other, which says most where the ones around it only say what was being done.
pub(crate) fn innermost(error: &dyn Error) -> String {
    std::iter::successors(error.source(), |&cause| cause.source()).last().map_or_else(|| error.to_string(), ToString::to_string)
}
