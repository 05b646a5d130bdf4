//! `hf://datasets/…` with the hub's own conversion to parquet: rows, columns and splits come from the branch that the hub writes
//! beside the repository's, and what it left out is said.

use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use substratus_crds::SourceStatus;
use substratus_tests::hub::{Content, Repo};

use super::Bench;

const IMPORTER: &str = "plugins/importer-huggingface";
const CONVERTED: &str = "refs/convert/parquet";

/// A table of rows that are numbered from `from` on.
fn table(from: i64, rows: i64) -> Content {
    let schema = parse_message_type("message rows { required int64 n; required binary prompt (UTF8); }").unwrap();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let numbers: Vec<i64> = (from..from + rows).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
    column.close().unwrap();
    let texts: Vec<ByteArray> = numbers.iter().map(|n| ByteArray::from(format!("question {n}").as_str())).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    Content::from(writer.into_inner().unwrap())
}

/// A repository of the user's CSV, with these files on the branch of the conversion.
fn repo(converted: &[(&str, Content)]) -> Repo {
    let branch = converted.iter().fold(Repo::dataset("acme/data"), |repo, (path, content)| repo.file(path, content.clone()));
    let main = converted.iter().fold(branch.revision(CONVERTED), |repo, (path, _)| repo.without(path));
    main.file("README.md", "---\nlicense: mit\n---\n# Questions\n").file("own.csv", "n,prompt\n1,own\n")
}

fn import(bench: &Bench, args: &[&str]) -> SourceStatus {
    let endpoint = format!("endpoint={}", bench.hub.url);
    bench.complete(IMPORTER, &[&["hf://datasets/acme/data", "--config", &endpoint], args].concat())
}

#[test]
fn rows_columns_and_splits_come_from_the_conversion_and_what_it_left_out_is_said() {
    let bench = Bench::new(repo(&[
        ("default/partial-train/0000.parquet", table(0, 300)),
        ("default/partial-train/0001.parquet", table(300, 200)),
        ("default/test/0000.parquet", table(900, 10)),
    ]));
    let source = import(&bench, &[]);
    assert_eq!(bench.files(), ["test-00000-of-00001.jsonl", "train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"]);
    assert_eq!((source.rows, source.files), (Some(510), 3));
    assert_eq!(source.schema, ["n: int", "prompt: string"]);
    let mut splits = source.splits.clone();
    splits.sort();
    assert_eq!((splits.as_slice(), source.license.as_deref()), (["test", "train"].map(str::to_owned).as_slice(), Some("mit")));
    let partial = source.partial.unwrap();
    assert!(partial.contains("only the beginning of train") && partial.contains("format: files"), "{partial}");
    assert!(bench.text("train-00001-of-00002.jsonl").starts_with("{\"n\":300,\"prompt\":\"question 300\"}\n"));
    // The commit is the branch's: the same one means the same rows.
    let branch = bench.hub.commit(substratus_tests::hub::Kind::Dataset, "acme/data", CONVERTED).unwrap();
    assert_eq!(source.revision.as_deref(), Some(branch.as_str()));
}

#[test]
fn a_split_that_is_whole_is_not_partial() {
    let bench =
        Bench::new(repo(&[("default/partial-train/0000.parquet", table(0, 3)), ("default/test/0000.parquet", table(9, 2))]));
    let source = import(&bench, &["--param", "split=test", "--param", "format=parquet"]);
    assert_eq!((source.rows, source.partial, source.splits), (Some(2), None, vec!["test".to_owned()]));
    assert_eq!(bench.files(), ["test-00000-of-00001.parquet"]);
}

#[test]
fn without_a_conversion_the_repositorys_own_rows_are_read_and_that_is_said() {
    let bench = Bench::new(Repo::dataset("acme/data").file("own.csv", "n,prompt\n1,own\n"));
    let source = import(&bench, &[]);
    assert_eq!((source.rows, source.partial), (Some(1), None));
    assert!(source.warnings.iter().any(|warning| warning.contains("no parquet conversion")), "{:?}", source.warnings);
    assert_eq!(bench.text("own.jsonl"), "{\"n\":\"1\",\"prompt\":\"own\"}\n");
}
