//! The record of a load: what is read back is what was written, however it ended.

use proptest::prelude::*;
use url::Url;

use super::super::plan::Origin;
use super::*;
use crate::bucket::{BucketUrl, Sink};

fn plan(revision: &str, digest: Option<u8>) -> Plan {
    let url = Url::parse("https://hub.example/f").unwrap();
    let origin = Origin { url, headers: http::HeaderMap::new(), auth: None, expires: None };
    let file = PlanFile { path: "f".into(), size: Some(10), sha256: digest.map(|byte| [byte; 32]), gitoid: None, origin };
    Plan { revision: revision.into(), files: vec![file], ..Plan::default() }
}

async fn sink(folder: &tempfile::TempDir) -> Sink {
    Sink::open(&BucketUrl::of_folder(folder.path()).unwrap()).await.unwrap()
}

async fn reopened(sink: &Sink, plan: &Plan) -> (u64, Vec<String>) {
    let (journal, left) = Journal::open(sink.records(), "inputs", plan).await.unwrap();
    (journal.done("f"), left.paths)
}

#[tokio::test]
async fn work_goes_on_only_for_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let sink = sink(&folder).await;
    for digest in [Some(1), None] {
        let (journal, _) = Journal::open(sink.records(), "inputs", &plan("a", digest)).await.unwrap();
        journal.forget("f");
        journal.begin("f", 10, digest.map(|byte| [byte; 32]), None);
        assert_eq!((journal.wrote("f", 4..6), journal.wrote("f", 0..4)), (0, 6));
        journal.flush().await.unwrap();
        assert_eq!(reopened(&sink, &plan("a", digest)).await.0, 6);
        assert_eq!(
            reopened(&sink, &plan("b", digest)).await.0,
            if digest.is_some() { 6 } else { 0 },
            "a digest outlives its revision"
        );
        assert_eq!(reopened(&sink, &plan("a", Some(2))).await.0, 0);
        assert_eq!(reopened(&sink, &Plan::default()).await, (0, vec!["f".to_owned()]));
    }
}

#[tokio::test]
async fn another_boot_is_not_trusted_without_a_digest() {
    let folder = tempfile::tempdir().unwrap();
    let sink = sink(&folder).await;
    let (journal, _) = Journal::open(sink.records(), "inputs", &plan("a", None)).await.unwrap();
    journal.begin("f", 10, None, None);
    journal.wrote("f", 0..5);
    journal.flush().await.unwrap();
    let path = folder.path().join(".substratus").join(JOURNAL);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut document: Document = serde_json::from_str(&text).unwrap();
    document.boot = "another".into();
    std::fs::write(&path, serde_json::to_string(&document).unwrap()).unwrap();
    assert_eq!(reopened(&sink, &plan("a", None)).await.0, 0);
}

#[tokio::test]
async fn finished_files_are_known_again_and_a_torn_line_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let sink = sink(&folder).await;
    let verified = Verified { size: 10, sha256: [1; 32] };
    let (journal, _) = Journal::open(sink.records(), "inputs", &plan("a", None)).await.unwrap();
    journal.finish("f", verified).unwrap();
    let path = folder.path().join(".substratus").join(FINISHED);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}{}", text.get(..20).unwrap())).unwrap();
    let finished = async |plan: &Plan| Journal::open(sink.records(), "inputs", plan).await.unwrap().0.finished(&plan.files[0]);
    assert_eq!(finished(&plan("a", None)).await, Some(verified));
    assert_eq!(finished(&plan("b", None)).await, None);
    assert_eq!(finished(&plan("b", Some(1))).await, Some(verified));
    assert_eq!(finished(&plan("a", Some(2))).await, None);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&path, text.replace(boot.trim(), "another")).unwrap();
    assert_eq!(finished(&plan("a", None)).await, None, "small, and perhaps not on the disk when the machine went down");
}

/// Files that are written, finished and forgotten in any order.
#[derive(Clone, Debug)]
enum Step {
    Wrote(usize, u64, u64),
    Finished(usize),
    Forgot(usize),
    Flushed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4_usize, 0..90_u64, 1..11_u64).prop_map(|(file, start, length)| Step::Wrote(file, start, length)),
        (0..4_usize).prop_map(Step::Finished),
        (0..4_usize).prop_map(Step::Forgot),
        Just(Step::Flushed),
    ];
    prop::collection::vec(step, 0..30)
}

/// What a journal should say: written ranges of files in work, and finished files in the order of their lines.
#[derive(Clone, Debug, Default)]
struct Truth {
    work: BTreeMap<String, Ranges>,
    finished: Vec<String>,
}

async fn write(journal: &Journal, steps: &[Step]) -> (Truth, Truth) {
    let (mut now, mut flushed) = (Truth::default(), Truth::default());
    for step in steps {
        match step {
            Step::Wrote(file, start, length) => {
                let name = format!("f{file}");
                journal.begin(&name, 100, Some([7; 32]), None);
                journal.wrote(&name, *start..start + length);
                now.work.entry(name).or_default().insert(*start..start + length);
            }
            Step::Finished(file) => {
                let name = format!("f{file}");
                journal.finish(&name, Verified { size: 100, sha256: [7; 32] }).unwrap();
                now.work.remove(&name);
                now.finished.push(name);
            }
            Step::Forgot(file) => {
                journal.forget(&format!("f{file}"));
                now.work.remove(&format!("f{file}"));
            }
            Step::Flushed => {
                journal.flush().await.unwrap();
                flushed = now.clone();
            }
        }
    }
    (now, flushed)
}

async fn any_prefix_replays(steps: &[Step], torn: usize) {
    let folder = tempfile::tempdir().unwrap();
    let sink = sink(&folder).await;
    let mut plan = plan("a", Some(7));
    let one = plan.files.remove(0);
    plan.files = (0..4).map(|file| PlanFile { path: format!("f{file}"), size: Some(100), ..one.clone() }).collect();
    let (journal, _) = Journal::open(sink.records(), "inputs", &plan).await.unwrap();
    let (now, flushed) = write(&journal, steps).await;
    drop(journal);
    // The process dies: the log of finished files ends anywhere, the other record is the one of the last flush.
    let path = folder.path().join(".substratus").join(FINISHED);
    let text = std::fs::read(&path).unwrap_or_default();
    let kept = text.get(..torn.min(text.len())).unwrap();
    std::fs::write(&path, kept).unwrap();
    let whole = String::from_utf8_lossy(kept).matches('\n').count();
    let (journal, _) = Journal::open(sink.records(), "inputs", &plan).await.unwrap();
    for file in &plan.files {
        let known = journal.finished(file).is_some();
        let sure = now.finished.get(..whole).unwrap().contains(&file.path);
        // The last line may be whole but for its end.
        let perhaps = now.finished.get(..(whole + 1).min(now.finished.len())).unwrap().contains(&file.path);
        assert!((sure || !known) || perhaps, "{}: {known} {sure} {perhaps}", file.path);
        assert!(known || !sure, "a line was written and is not known: {}", file.path);
        assert_eq!(journal.done(&file.path), flushed.work.get(&file.path).map_or(0, Ranges::len));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_prefix_of_what_was_written_replays(steps in steps(), torn in 0..3000_usize) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(any_prefix_replays(&steps, torn));
    }
}

#[test]
fn digests_are_read_strictly() {
    assert_eq!(unhex(&hex::encode([0xab; 32])), Some([0xab; 32]));
    assert_eq!(unhex::<32>("ab"), None);
    assert_eq!(unhex::<32>(&"+1".repeat(32)), None);
}
