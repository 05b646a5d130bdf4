//! The two calls of a loader. A manifest is one document, so a page is a part of its files; each page reads it anew, by its digest.

use substratus_plugin::{
    Failure, glob,
    http::Http,
    loader::{File, PlanPage, Request},
};

use crate::{
    facts::{facts, format_of},
    manifest::Manifest,
    reference::Reference,
    registry,
};

/// Files of one answer.
const MAX_FILES: usize = 1000;
/// Bytes of a config that is read.
const MAX_CONFIG: u64 = 1024 * 1024;
/// The annotation with what `ModelPack`'s config has no member for.
const FACTS: &str = "ai.substratus.model";

/// One page of the plan; the first one pins the revision to the manifest's digest.
pub fn resolve(http: &dyn Http, request: &Request, cursor: Option<&str>) -> Result<PlanPage, Failure> {
    let place = Reference::of(request)?;
    let skip: usize = match cursor {
        None => 0,
        Some(text) => text.parse().map_err(|_| Failure::Internal(format!("reading a cursor: {text:?} is no number")))?,
    };
    let (manifest, digest) = registry::manifest(http, &place)?;
    let all = manifest.files(&place).map_err(|why| registry::unsupported(&place, &why))?;
    let mut files = chosen(request, all);
    if files.is_empty() {
        return Err(Failure::NotFound(format!("{} has no file that was asked for: check spec.files", place.shown())));
    }
    let facts = (skip == 0).then(|| facts_of(http, &place, &manifest, &files));
    let rest = files.split_off(skip.min(files.len()));
    let next = (rest.len() > MAX_FILES).then(|| (skip + MAX_FILES).to_string());
    let files = rest.into_iter().take(MAX_FILES).collect();
    Ok(PlanPage { revision: digest, files, facts, warnings: Vec::new(), next, extensions: Vec::new() })
}

/// A blob lies where its digest says, and nowhere else: the host asks nobody.
pub fn refresh(_: &Request, path: &str) -> Result<File, Failure> {
    Err(Failure::Internal(format!("refreshing {path:?}: a blob of a registry does not move")))
}

/// What `spec.files` leaves.
fn chosen(request: &Request, all: Vec<File>) -> Vec<File> {
    let filter = &request.files;
    let format = filter.format.as_deref().filter(|format| !format.is_empty());
    let keeps = |file: &File| {
        let included = filter.include.is_empty() || glob::any_matches(&filter.include, &file.path);
        let of_format = format.is_none_or(|format| format_of(&file.path).is_none_or(|own| own == format));
        included && of_format && !glob::any_matches(&filter.exclude, &file.path)
    };
    all.into_iter().filter(keeps).collect()
}

fn facts_of(http: &dyn Http, place: &Reference, manifest: &Manifest, files: &[File]) -> substratus_plugin::loader::ModelFacts {
    let config = manifest.config.as_ref().filter(|config| {
        let of_model = config.media_type.starts_with("application/vnd.cncf.model.config.");
        of_model && config.size <= MAX_CONFIG && crate::reference::is_digest(&config.digest)
    });
    let config = config.and_then(|config| registry::config(http, place, config));
    facts(config.as_ref(), manifest.annotations.get(FACTS).map(String::as_str), files)
}

#[cfg(test)]
mod tests {
    use substratus_plugin::testing;

    use super::*;

    #[test]
    fn cases() {
        testing::loader_cases(env!("CARGO_MANIFEST_DIR"), resolve, refresh);
    }
}
