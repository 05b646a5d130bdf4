//! From a repository to shards: the hub's parquet conversion where there is one, else the repository's own files. What to ask is in
//! `hub`.

use std::collections::{BTreeMap, BTreeSet};

use substratus_plugin::{
    Failure, glob,
    http::Http,
    importer::{DatasetFacts, Decoding, File, Parsing, PlanPage, Request, Shard},
    invalid,
};

use crate::{
    asked::{Asked, Format},
    hub::{self, Entry},
};

/// The branch that the hub's own conversion writes.
const CONVERTED: &str = "refs/convert/parquet";
const COMPRESSED: [&str; 2] = [".gz", ".zst"];
const ROWS: [&str; 6] = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"];

/// All on one page.
pub fn plan(http: &dyn Http, request: &Request, _: Option<&str>) -> Result<PlanPage, Failure> {
    let asked = Asked::of(request)?;
    let main = hub::info(http, &asked, asked.revision.as_deref().unwrap_or("main"))?;
    let mut warnings = Vec::new();
    let converted = match (asked.format, &asked.revision) {
        (Format::Files, _) | (_, Some(_)) => None,
        (format, None) => match hub::info(http, &asked, CONVERTED) {
            Ok(info) => Some(info),
            Err(Failure::NotFound(_)) if format == Format::Jsonl => {
                warnings.push("the hub has no parquet conversion of this data set: rows are read from its own files".to_owned());
                None
            }
            Err(failure) => return Err(failure),
        },
    };
    let (revision, shards, partial) = if let Some(converted) = converted {
        let files = hub::files(http, &asked, &converted.sha)?;
        let (shards, partial) = of_conversion(&asked, &converted.sha, &files)?;
        (converted.sha, shards, partial)
    } else {
        let files = hub::files(http, &asked, &main.sha)?;
        let shards = of_files(&asked, request, &main.sha, &files)?;
        (main.sha.clone(), shards, None)
    };
    let facts = Some(DatasetFacts { license: main.license(), partial });
    Ok(PlanPage { revision, shards, facts, warnings, next: None, extensions: Vec::new() })
}

/// The hub redirects every request to a fresh signed URL, so the file is where it was.
pub fn refresh(request: &Request, path: &str) -> Result<File, Failure> {
    let asked = Asked::of(request)?;
    let Some(commit) = request.revision.as_deref() else {
        return Err(Failure::Internal(format!("refreshing {path:?} of {} needs the revision of the plan", asked.id)));
    };
    Ok(File { path: path.to_owned(), size: None, digest: None, origin: hub::origin(&asked, commit, path) })
}

/// `config/split/0000.parquet`, or `config/partial-split/0000.parquet` where the hub converted only the beginning.
fn of_conversion(asked: &Asked, commit: &str, files: &[Entry]) -> Result<(Vec<Shard>, Option<String>), Failure> {
    let mut configs: BTreeMap<&str, BTreeMap<&str, Vec<&Entry>>> = BTreeMap::new();
    for entry in files {
        let mut parts = entry.path.split('/');
        if let (Some(config), Some(split), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
            && name.ends_with(".parquet")
        {
            configs.entry(config).or_default().entry(split).or_default().push(entry);
        }
    }
    let names = configs.keys().copied().collect::<Vec<_>>().join(", ");
    let config = match (asked.config.as_deref(), configs.len()) {
        (Some(config), _) => config,
        (None, 1) => names.as_str(),
        (None, _) => "default",
    };
    let Some(splits) = configs.get(config) else {
        return Err(invalid("spec.params.config", format!("names none of the configurations {names}")));
    };
    let (mut shards, mut partial) = (Vec::new(), BTreeSet::new());
    for (folder, entries) in splits {
        let split = folder.strip_prefix("partial-").unwrap_or(folder);
        if asked.split.as_deref().is_some_and(|wanted| wanted != split) {
            continue;
        }
        if split != *folder {
            partial.insert(split);
        }
        for (number, entry) in entries.iter().enumerate() {
            let name = format!("{split}-{number:05}-of-{:05}", entries.len());
            let (decoding, ending) = match asked.format {
                Format::Parquet => (Decoding::Copy, "parquet"),
                _ => (Decoding::Rows(Parsing { format: Some("parquet".into()), member: None }), "jsonl"),
            };
            let output = format!("{name}.{ending}");
            shards.push(Shard { split: Some(split.to_owned()), decoding, ..shard(asked, commit, entry, name, output) });
        }
    }
    if shards.is_empty() {
        let known = splits.keys().map(|split| split.strip_prefix("partial-").unwrap_or(split)).collect::<Vec<_>>().join(", ");
        return Err(invalid("spec.params.split", format!("names none of the splits {known}")));
    }
    let partial = partial.into_iter().collect::<Vec<_>>().join(", ");
    let why = format!("the hub converted only the beginning of {partial}; spec.params.format: files imports the original files");
    Ok((shards, Some(why).filter(|_| !partial.is_empty())))
}

/// The repository's own files, as they are or as rows.
fn of_files(asked: &Asked, request: &Request, commit: &str, files: &[Entry]) -> Result<Vec<Shard>, Failure> {
    if asked.format != Format::Files && (asked.config.is_some() || asked.split.is_some()) {
        let why = "is told by the hub's conversion alone: leave it out, and choose files with spec.files.include";
        return Err(invalid(if asked.config.is_some() { "spec.params.config" } else { "spec.params.split" }, why));
    }
    let filter = &request.files;
    let mut shards = Vec::new();
    for entry in files {
        let path = entry.path.as_str();
        let included = filter.include.is_empty() || glob::any_matches(&filter.include, path);
        let own = matches!(path.rsplit('/').next(), Some(".gitattributes" | ".gitignore"));
        if own || !included || glob::any_matches(&filter.exclude, path) {
            continue;
        }
        if asked.format == Format::Files {
            shards.push(shard(asked, commit, entry, path.to_owned(), path.to_owned()));
        } else if let Some(stem) = rows(path) {
            let decoding = Decoding::Rows(Parsing { format: None, member: None });
            shards.push(Shard { decoding, ..shard(asked, commit, entry, path.to_owned(), format!("{stem}.jsonl")) });
        }
    }
    if shards.is_empty() {
        let none = format!("{} has no file of this choice; spec.params.format: files imports everything", asked.id);
        return Err(Failure::NotFound(none));
    }
    Ok(shards)
}

/// The name of a file with rows, without its endings.
fn rows(path: &str) -> Option<&str> {
    let path = COMPRESSED.iter().find_map(|ending| path.strip_suffix(ending)).unwrap_or(path);
    ROWS.iter().find_map(|ending| path.strip_suffix(ending)).filter(|stem| !stem.is_empty() && !stem.ends_with('/'))
}

fn shard(asked: &Asked, commit: &str, entry: &Entry, name: String, output: String) -> Shard {
    Shard {
        name,
        inputs: vec![entry.input(asked, commit)],
        decoding: Decoding::Copy,
        mapped: false,
        output,
        split: None,
        context: "{}".into(),
        extensions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use substratus_plugin::testing;

    use super::*;

    #[test]
    fn cases() {
        testing::importer_cases(env!("CARGO_MANIFEST_DIR"), plan, refresh, crate::transform);
    }

    #[test]
    fn files_with_rows_are_told_by_their_names() {
        assert_eq!(rows("data/train.jsonl.gz"), Some("data/train"));
        assert_eq!(rows("a.csv"), Some("a"));
        assert_eq!(rows("README.md"), None);
        assert_eq!(rows("data/.json"), None);
    }
}
