//! Judges the answers of importers before anybody uses them. Knows nothing about buckets; the worker checks again what concerns it.

use std::collections::HashSet;

use super::answers::{PLAN_CURSOR_BYTES, bounded, check_file, check_file_path, name, sentences};
use super::text::{clip, sentence};
use super::types::{Decoding, ImportPage, ImportRequest, Shard, ShardReport};
use crate::limits;

/// Formats that native code reads rows from.
const FORMATS: [&str; 5] = ["jsonl", "json", "csv", "tsv", "parquet"];
/// Longest context of a shard.
const CONTEXT_BYTES: usize = 64 * 1024;

/// A page of shards, made fit to use.
pub(super) fn plan_page(mut page: ImportPage, asked: &ImportRequest, cursor: Option<&str>) -> Result<ImportPage, String> {
    name("revision", &page.revision)?;
    if let Some(revision) = asked.revision.as_ref().filter(|revision| **revision != page.revision) {
        let before = sentence(revision);
        return Err(format!("the revision was `{before}` and is now `{}`: all pages of a plan have one", page.revision));
    }
    let mut names = HashSet::new();
    for shard in &page.shards {
        check_shard(shard).map_err(|reason| format!("shard `{}`: {reason}", clip(&shard.name, 200)))?;
        if !names.insert(shard.name.as_str()) {
            return Err(format!("shard `{}` comes twice", shard.name));
        }
    }
    if let Some(facts) = &mut page.facts {
        facts.license.as_deref().map_or(Ok(()), |license| name("the licence", license))?;
        facts.partial = facts.partial.as_deref().map(sentence);
    }
    if let Some(next) = &page.next {
        bounded("the cursor", next, PLAN_CURSOR_BYTES)?;
        if next.is_empty() || Some(next.as_str()) == cursor {
            return Err("the cursor of the next page is empty or the one of this page: the plan would never end".to_owned());
        }
    }
    sentences(&mut page.warnings);
    Ok(page)
}

/// What a transform says of its shard. Whether it is true is for the worker to see.
#[expect(clippy::unnecessary_wraps, reason = "judges have one shape")]
pub(super) fn shard_report(mut report: ShardReport) -> Result<ShardReport, String> {
    sentences(&mut report.warnings);
    Ok(report)
}

fn check_shard(shard: &Shard) -> Result<(), String> {
    name("its name", &shard.name)?;
    if shard.inputs.len() > limits::SHARD_INPUTS {
        return Err(format!("{} inputs, and at most {} are possible", shard.inputs.len(), limits::SHARD_INPUTS));
    }
    if shard.inputs.is_empty() && !shard.mapped {
        return Err("nothing to fetch and nothing to map".to_owned());
    }
    shard.inputs.iter().try_for_each(check_file)?;
    let folder = !matches!(shard.decoding, Decoding::Rows(_));
    if !(shard.mapped || (folder && shard.output.is_empty())) {
        check_file_path(&shard.output)?;
    }
    if let Decoding::Rows(parsing) = &shard.decoding {
        if let Some(format) = parsing.format.as_deref().filter(|format| !FORMATS.contains(format)) {
            return Err(format!("rows of format `{}`, and there are {}", sentence(format), FORMATS.join(", ")));
        }
        parsing.member.as_deref().map_or(Ok(()), |member| name("the member", member))?;
    }
    if let Some(split) = &shard.split {
        name("the split", split)?;
    }
    if shard.context.len() > CONTEXT_BYTES {
        return Err(format!("its context has {} bytes, and at most {CONTEXT_BYTES} are possible", shard.context.len()));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::plugin::types::{File, FileFilter, HttpOrigin, Origin, Parsing, Subject};

    /// A question about a Dataset that asks for nothing in particular.
    pub(in crate::plugin) fn request() -> ImportRequest {
        ImportRequest {
            subject: Subject { kind: "Dataset".into(), namespace: "default".into(), name: "d".into() },
            source: None,
            params: vec![],
            files: FileFilter { include: vec![], exclude: vec![], format: None },
            config: "{}".into(),
            revision: None,
            extensions: vec![],
        }
    }

    fn shard() -> Shard {
        let origin = HttpOrigin { url: "https://a.example/x".into(), headers: vec![], auth: None, expires: None };
        Shard {
            name: "a".into(),
            inputs: vec![File { path: "x.csv".into(), size: None, digest: None, origin: Origin::Http(origin) }],
            decoding: Decoding::Copy,
            mapped: false,
            output: "x.csv".into(),
            split: None,
            context: "{}".into(),
            extensions: vec![],
        }
    }

    fn judged(shards: Vec<Shard>) -> Result<ImportPage, String> {
        let page = ImportPage { revision: "r".into(), shards, facts: None, warnings: vec![], next: None, extensions: vec![] };
        plan_page(page, &request(), None)
    }

    #[test]
    fn shards_that_make_no_sense_are_refused() {
        assert!(judged(vec![shard()]).is_ok());
        let rows = |format: &str| Decoding::Rows(Parsing { format: Some(format.into()), member: None });
        for (wrong, word) in [
            (vec![shard(), shard()], "twice"),
            (vec![Shard { output: "../x".into(), ..shard() }], "`..`"),
            (vec![Shard { output: "/x".into(), ..shard() }], "absolute"),
            (vec![Shard { output: String::new(), decoding: rows("csv"), ..shard() }], "empty"),
            (vec![Shard { decoding: rows("xml"), ..shard() }], "rows of format `xml`"),
            (vec![Shard { inputs: vec![], ..shard() }], "nothing to fetch"),
            (vec![Shard { inputs: vec![shard().inputs.remove(0); 65], ..shard() }], "65 inputs"),
            (vec![Shard { name: String::new(), ..shard() }], "its name is empty"),
            (vec![Shard { context: "x".repeat(70_000), ..shard() }], "its context"),
        ] {
            let error = judged(wrong).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
        // An archive's members may lie at the top, and a guest names its own files.
        assert!(judged(vec![Shard { output: String::new(), decoding: Decoding::Unpack, ..shard() }]).is_ok());
        assert!(judged(vec![Shard { output: String::new(), mapped: true, inputs: vec![], ..shard() }]).is_ok());
    }
}
