//! What comes out of files that behave, and what does not come out of those that do not.

use std::io::{Seek, Write};
use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use flate2::Compression;
use flate2::write::GzEncoder;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

fn on_disk(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn budget(bytes: &[u8]) -> Budget {
    Budget::of(bytes.len() as u64)
}

/// Names and contents of what lies in a file.
fn unpacked(name: &str, bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, DecodeError> {
    let mut found = Vec::new();
    walk(name, Opened::File(&on_disk(bytes)), &budget(bytes), Layers::UNPACK, &mut |name, _, opened| {
        let mut content = Vec::new();
        opened.into_stream().read_to_end(&mut content).map_err(|error| failed(name, &error))?;
        found.push((name.to_owned(), content));
        Ok(())
    })?;
    Ok(found)
}

/// Rows as texts, through every layer.
fn parsed(name: &str, bytes: &[u8], format: Option<&str>, member: Option<&str>) -> Result<Vec<String>, DecodeError> {
    let parsing = Parsing { format: format.map(str::to_owned), member: member.map(str::to_owned) };
    let (budget, mut found) = (budget(bytes), Vec::new());
    walk(name, Opened::File(&on_disk(bytes)), &budget, Layers::ROWS, &mut |name, _, opened| {
        rows(name, opened, &parsing, &budget, &mut |row| {
            found.push(String::from_utf8(row.to_vec()).unwrap());
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(found)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    gz_of(bytes)
}

fn gz_of(mut from: impl Read) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    std::io::copy(&mut from, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// A header with a name as it is, however bad.
fn header(name: &str, kind: ::tar::EntryType, size: u64) -> ::tar::Header {
    let mut header = ::tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ::tar::Builder::new(Vec::new());
    for (name, content) in members {
        archive.append(&header(name, ::tar::EntryType::Regular, content.len() as u64), *content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn reason_of(error: DecodeError) -> &'static str {
    LoadError::from(error).reason
}

#[test]
fn compressions_and_archives_are_told_by_their_bytes() {
    let text = b"hello".to_vec();
    assert_eq!(unpacked("a.txt", &text).unwrap(), [("a.txt".to_owned(), text.clone())]);
    assert_eq!(unpacked("a.txt.gz", &gz(&text)).unwrap(), [("a.txt".to_owned(), text.clone())]);
    assert_eq!(unpacked("a", &zstd::encode_all(&text[..], 1).unwrap()).unwrap(), [("a".to_owned(), text.clone())]);
    let both = [("x/a.txt".to_owned(), text.clone()), ("b".to_owned(), b"2".to_vec())];
    let members: &[(&str, &[u8])] = &[("x/a.txt", b"hello"), ("./b", b"2")];
    assert_eq!(unpacked("all.tar", &tar(members)).unwrap(), both);
    assert_eq!(unpacked("all.tgz", &gz(&tar(members))).unwrap(), both);
    assert_eq!(unpacked("all.zip", &zip(members)).unwrap(), both);
    // A member that is compressed stays what it is; an archive in an archive too.
    assert_eq!(unpacked("all.tar", &tar(&[("a.gz", &gz(&text))])).unwrap(), [("a.gz".to_owned(), gz(&text))]);
    assert!(unpacked("empty.zip", &zip(&[])).unwrap().is_empty());
}

#[test]
fn long_names_of_tar_are_read() {
    let long = format!("{}/a.txt", "folder".repeat(30));
    let mut archive = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(2);
    archive.append_data(&mut header, &long, &b"hi"[..]).unwrap();
    assert_eq!(unpacked("all.tar", &archive.into_inner().unwrap()).unwrap(), [(long, b"hi".to_vec())]);
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    for name in ["../evil", "/etc/passwd", "a/../../evil", "a//b", "a\\..\\b", "..", "C:\\x"] {
        for (kind, bytes) in [("tar", tar(&[(name, b"x")])), ("zip", zip(&[(name, b"x")]))] {
            match unpacked(&format!("evil.{kind}"), &bytes) {
                Err(error @ DecodeError::Unsafe(..)) => assert_eq!(reason_of(error), reason::REFUSED, "{kind} {name}"),
                other => panic!("{kind} {name}: {other:?}"),
            }
        }
    }
    // The long name of a GNU extension is a name like another.
    let mut bytes = Vec::new();
    let long = format!("{}/evil\0", "../".repeat(60));
    let mut archive = ::tar::Builder::new(&mut bytes);
    archive.append(&header("././@LongLink", ::tar::EntryType::GNULongName, long.len() as u64), long.as_bytes()).unwrap();
    archive.append(&header("short", ::tar::EntryType::Regular, 1), &b"x"[..]).unwrap();
    drop(archive);
    assert!(matches!(unpacked("evil.tar", &bytes), Err(DecodeError::Unsafe(..))));
}

#[test]
fn links_and_devices_are_refused() {
    use ::tar::EntryType;
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
        let mut archive = ::tar::Builder::new(Vec::new());
        archive.append(&header("innocent", kind, 0), &b""[..]).unwrap();
        let found = unpacked("evil.tar", &archive.into_inner().unwrap());
        assert!(matches!(found, Err(DecodeError::Unsafe(..))), "{kind:?}: {found:?}");
    }
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.add_symlink("innocent", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let found = unpacked("evil.zip", &archive.finish().unwrap().into_inner());
    assert!(matches!(found, Err(DecodeError::Unsafe(..))), "{found:?}");
}

/// Reads it to its end without keeping it.
fn drained(name: &str, bytes: &[u8]) -> Result<(), DecodeError> {
    walk(name, Opened::File(&on_disk(bytes)), &budget(bytes), Layers::UNPACK, &mut |name, _, opened| {
        std::io::copy(&mut opened.into_stream(), &mut std::io::sink()).map(drop).map_err(|error| failed(name, &error))
    })
}

#[test]
fn bombs_are_stopped() {
    let zeros = || std::io::repeat(0).take(1024 * 1024 * 1024);
    let in_zstd = zstd::encode_all(zeros(), 1).unwrap();
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file("zeros", SimpleFileOptions::default()).unwrap();
    std::io::copy(&mut zeros(), &mut archive).unwrap();
    let in_zip = archive.finish().unwrap().into_inner();
    let in_gz = gz_of(zeros());
    for (name, bytes) in [("a.zst", in_zstd), ("a.zip", in_zip), ("a.gz", in_gz)] {
        let error = drained(name, &bytes).unwrap_err();
        assert!(error.to_string().contains("bomb"), "{name}: {error}");
        assert_eq!(reason_of(error), reason::TOO_LARGE);
    }
    // Nothing is wrong with a file that is what it is.
    drained("plain", &vec![0; 1024 * 1024]).unwrap();
}

#[test]
fn extension_headers_of_a_tar_are_bounded() {
    let mut archive = ::tar::Builder::new(Vec::new());
    let size = 1024 * 1024;
    archive.append(&header("././@LongLink", ::tar::EntryType::GNULongName, size), std::io::repeat(b'a').take(size)).unwrap();
    let found = unpacked("evil.tar", &archive.into_inner().unwrap());
    assert!(matches!(found, Err(DecodeError::Unsafe(..))), "{found:?}");
}

#[test]
fn broken_files_are_bad_data_and_no_panic() {
    let (good_gz, good_zip, good_tar) = (gz(&[7; 5000]), zip(&[("a", &[7; 5000])]), gz(&tar(&[("a", &[7; 5000])])));
    for (name, bytes) in [("a.gz", &good_gz), ("a.zip", &good_zip), ("a.tar.gz", &good_tar)] {
        let error = drained(name, &bytes[..bytes.len() / 2]).unwrap_err();
        assert_eq!(reason_of(error), reason::INVALID, "{name}");
    }
    for name in ["a.json", "a.jsonl", "a.csv", "a.parquet"] {
        let found = parsed(name, b"PAR1 \xff\xfe {{{ \0", None, None);
        assert!(found.is_err(), "{name}: {found:?}");
    }
}

#[test]
fn rows_of_json_lines_are_objects_as_they_are() {
    let text = "\u{feff}{\"a\": 1}\n\n  {\"b\":\"ü\"}\r\n{\"a\":2}";
    assert_eq!(parsed("x.jsonl", text.as_bytes(), None, None).unwrap(), ["{\"a\": 1}", "{\"b\":\"ü\"}", "{\"a\":2}"]);
    for (text, words) in [("{\"a\":1}\n[1]\n", "line 2"), ("{\"a\":1\n", "line 1"), ("{\"a\":\"\u{1}\"}", "line 1")] {
        let error = parsed("x.jsonl", text.as_bytes(), None, None).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn rows_of_json_documents_are_elements_or_the_members_of_one_member() {
    let list = br#" [ {"a": [1, {"b": "]}\""}]} , {"a":2}
        ] "#;
    assert_eq!(parsed("x.json", list, None, None).unwrap(), [r#"{"a":[1,{"b":"]}\""}]}"#, r#"{"a":2}"#]);
    let object = br#"{"version": "v2", "list": {"data": [1]}, "data": [{"a":1}, {"a":2}], "more": null}"#;
    assert_eq!(parsed("x.json", object, None, Some("data")).unwrap(), [r#"{"a":1}"#, r#"{"a":2}"#]);
    assert_eq!(parsed("x.json", b"{\"a\":1} {\"a\":2}", None, None).unwrap(), [r#"{"a":1}"#, r#"{"a":2}"#]);
    assert_eq!(parsed("x.json", b"[]", None, None).unwrap(), Vec::<String>::new());
    for (text, member) in [
        ("[{\"a\":1}", None),
        ("[{\"a\":1} {\"a\":2}]", None),
        ("[1]", None),
        ("{\"a\": tr ue}", None),
        ("{\"rows\": [{\"a\":1}]}", Some("data")),
        ("{\"data\": 7}", Some("data")),
        ("[{\"a\":1}]]", None),
        ("nonsense", None),
    ] {
        let found = parsed("x.json", text.as_bytes(), None, member);
        assert!(matches!(found, Err(DecodeError::Bad(..))), "{text}: {found:?}");
    }
    // As deep as it likes: nothing recurses without an end.
    assert!(parsed("x.json", "[".repeat(1_000_000).as_bytes(), None, None).is_err());
}

#[test]
fn rows_of_tables_are_texts_by_column() {
    let csv = "name,say\n\"Zoë, the\",\"a \"\"b\"\"\nc\"\n,\n";
    let rows = [r#"{"name":"Zoë, the","say":"a \"b\"\nc"}"#, r#"{"name":"","say":""}"#];
    assert_eq!(parsed("x.csv", csv.as_bytes(), None, None).unwrap(), rows);
    assert_eq!(parsed("x", b"a\tb\n1\t2\n", Some("tsv"), None).unwrap(), [r#"{"a":"1","b":"2"}"#]);
    assert!(parsed("x.csv", b"a,b\n1,2,3\n", None, None).unwrap_err().to_string().contains("line: 2"));
    assert!(parsed("x.csv", b"a,a\n1,2\n", None, None).unwrap_err().to_string().contains("twice"));
    assert!(parsed("x.csv", b"a\n\xff\xfe\n", None, None).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn rows_that_never_end_are_refused() {
    let endless = vec![b'x'; MAX_ROW + 2 * BUFFER];
    let json = [b"{\"a\":\"".as_slice(), &endless].concat();
    for (name, bytes) in [("a.jsonl", &json), ("a.json", &json)] {
        let error = parsed(name, bytes, None, None).unwrap_err();
        assert_eq!(reason_of(error), reason::TOO_LARGE, "{name}");
    }
    let quote = [b"a\n\"".as_slice(), &endless].concat();
    assert!(parsed("a.csv", &quote, None, None).unwrap_err().to_string().contains("quote left open"));
}

#[test]
fn rows_are_found_inside_of_archives() {
    let inner = gz(b"{\"a\":2}\n");
    let archive = tar(&[("a.jsonl", b"{\"a\":1}\n"), ("b.jsonl.gz", &inner), ("README.md", b"# no rows"), ("c.csv", b"a\n3\n")]);
    assert_eq!(parsed("all.tar.gz", &gz(&archive), None, None).unwrap(), [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":"3"}"#]);
}

/// Two columns, two row groups.
fn table() -> Vec<u8> {
    let schema = parse_message_type("message rows { required int64 n; optional binary text (UTF8); }").unwrap();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::default()).unwrap();
    for (n, text) in [(1, Some("one")), (2, None)] {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[n], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let (values, levels): (Vec<ByteArray>, i16) = (text.map(ByteArray::from).into_iter().collect(), text.is_some().into());
        column.typed::<ByteArrayType>().write_batch(&values, Some(&[levels]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn rows_of_parquet_keep_their_columns() {
    let bytes = table();
    assert_eq!(parsed("x", &bytes, None, None).unwrap(), [r#"{"n":1,"text":"one"}"#, r#"{"n":2,"text":null}"#]);
    assert_eq!(count("x.parquet", &on_disk(&bytes)).unwrap(), Some(2));
    let error = parsed("x.tar", &tar(&[("x.parquet", &bytes)]), None, None).unwrap_err();
    assert_eq!(reason_of(error), reason::UNSUPPORTED);
}

#[test]
fn rows_are_counted_without_parsing_them() {
    let counted = |name: &str, bytes: &[u8]| count(name, &on_disk(bytes)).unwrap();
    assert_eq!(counted("a.jsonl", b"{}\n\n{}"), Some(2));
    assert_eq!(counted("a.csv", b"a\n\"1\n2\"\n3\n"), Some(2));
    assert_eq!(counted("a.tsv", b""), Some(0));
    assert_eq!(counted("a.bin", b"\0"), None);
}
