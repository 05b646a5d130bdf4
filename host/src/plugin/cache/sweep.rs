//! Keeps the plugin store within bounds: what nobody needs goes, the longest unused first. Decides by names and times, and reads no
//! file.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Cache, file, is_sha256};

/// What was used within this time stays: it may be about to be needed.
const FRESH: Duration = Duration::from_mins(10);
/// What nobody needs and nobody used for so long goes, whatever room there is.
const UNUSED: Duration = Duration::from_hours(7 * 24);
/// Begun files that nobody finished.
const ABANDONED: Duration = Duration::from_hours(24);
/// Notes are small, and counted.
const NOTES: usize = 4096;
/// A store fuller than this is emptied …
const HIGH: u64 = 80;
/// … down to this, in hundredths of its room.
const LOW: u64 = 60;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files that went.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of components and native code that are left.
    pub left: u64,
}

/// A file that may have to go.
struct Kept {
    path: PathBuf,
    size: u64,
    used: SystemTime,
    /// It is of a component that somebody needs.
    needed: bool,
}

impl Cache {
    /// Removes what is of no component in `needed`, so that the store fits into `room` bytes, or was not used for a week. What is
    /// needed stays, also where that is more than there is room for.
    pub(in super::super) fn sweep(&self, needed: &BTreeSet<String>, room: u64, now: SystemTime) -> io::Result<Swept> {
        let mut kept = listed(&self.root.join("blobs/sha256"), "", needed)?;
        for engine in fs::read_dir(self.root.join("aot"))? {
            let path = engine?.path();
            // No other engine's code is of use to this one; it may be to another version beside it for a while.
            let own = path.file_name().is_some_and(|name| name.to_str() == Some(&self.engine_id));
            let nothing = BTreeSet::new();
            kept.extend(listed(&path, ".cwasm", if own { needed } else { &nothing })?);
        }
        let mut swept = Swept { left: kept.iter().map(|file| file.size).sum(), ..Swept::default() };
        kept.retain(|file| !file.needed && since(now, file.used) > FRESH);
        kept.sort_by(|one, other| (one.used, &one.path).cmp(&(other.used, &other.path)));
        let full = swept.left > share(room, HIGH);
        for file in kept {
            if since(now, file.used) > UNUSED || (full && swept.left > share(room, LOW)) {
                swept.remove(&file);
            }
        }
        self.sweep_small(now)?;
        Ok(swept)
    }

    /// Notes that are too many, and what was never finished.
    fn sweep_small(&self, now: SystemTime) -> io::Result<()> {
        let nothing = BTreeSet::new();
        let mut notes = listed(&self.root.join("notes"), "", &nothing)?;
        notes.sort_by_key(|note| std::cmp::Reverse(note.used));
        notes.iter().skip(NOTES).for_each(|note| file::remove(&note.path));
        let begun = listed(&self.root.join("tmp"), "", &nothing)?;
        begun.iter().filter(|file| since(now, file.used) > ABANDONED).for_each(|begun| file::remove(&begun.path));
        Ok(())
    }
}

impl Swept {
    fn remove(&mut self, file: &Kept) {
        file::remove(&file.path);
        self.files += 1;
        self.bytes += file.size;
        self.left = self.left.saturating_sub(file.size);
    }
}

/// Files of a folder; what is no file is none of ours, or a process's that lives.
fn listed(folder: &Path, ending: &str, needed: &BTreeSet<String>) -> io::Result<Vec<Kept>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Somebody else may have removed it.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            continue;
        }
        let name = entry.file_name();
        let hex = name.to_str().and_then(|name| name.strip_suffix(ending)).filter(|hex| is_sha256(hex));
        let needed = hex.is_some_and(|hex| needed.contains(&format!("sha256:{hex}")));
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        found.push(Kept { path: entry.path(), size: metadata.len(), used, needed });
    }
    Ok(found)
}

/// Nothing where a clock went back.
fn since(now: SystemTime, then: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

fn share(room: u64, hundredths: u64) -> u64 {
    room / 100 * hundredths
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;

    use super::super::super::alarm::Alarms;
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    struct Store {
        folder: tempfile::TempDir,
        cache: Cache,
        now: SystemTime,
    }

    impl Store {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let cache = Cache::open(folder.path(), "this".to_owned(), Alarms::default()).unwrap();
            Self { folder, cache, now: SystemTime::now() }
        }

        /// A file of so many bytes, used so long ago.
        fn put(&self, path: &str, size: u64, age: Duration) {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = File::create(&path).unwrap();
            file.set_len(size).unwrap();
            file.set_modified(self.now - age).unwrap();
        }

        fn sweep(&self, needed: &[u64], room: u64) -> Swept {
            let needed = needed.iter().map(|number| format!("sha256:{}", hex(*number))).collect();
            self.cache.sweep(&needed, room, self.now).unwrap()
        }

        fn has(&self, path: &str) -> bool {
            self.folder.path().join(path).exists()
        }
    }

    fn hex(number: u64) -> String {
        format!("{number:064x}")
    }

    fn blob(number: u64) -> String {
        format!("blobs/sha256/{}", hex(number))
    }

    fn code(engine: &str, number: u64) -> String {
        format!("aot/{engine}/{}.cwasm", hex(number))
    }

    #[test]
    fn the_longest_unused_go_first_and_what_is_needed_never() {
        let store = Store::new();
        for number in 0..10 {
            store.put(&blob(number), 100, HOUR * (20 - u32::try_from(number).unwrap()));
        }
        // 1000 bytes are more than 80 of 1000 in a hundred; 600 may stay, and the oldest two are needed.
        let swept = store.sweep(&[0, 1], 1000);
        assert_eq!(swept, Swept { files: 4, bytes: 400, left: 600 });
        for (number, stays) in [(0, true), (1, true), (2, false), (5, false), (6, true), (9, true)] {
            assert_eq!(store.has(&blob(number)), stays, "{number}");
        }
        assert_eq!(store.sweep(&[0, 1], 1000), Swept { left: 600, ..Swept::default() });
    }

    #[test]
    fn what_is_needed_stays_also_where_there_is_no_room_for_it() {
        let store = Store::new();
        store.put(&blob(1), 1000, UNUSED * 2);
        store.put(&code("this", 1), 1000, UNUSED * 2);
        store.put(&code("another", 1), 1000, HOUR);
        let swept = store.sweep(&[1], 10);
        assert_eq!(swept, Swept { files: 1, bytes: 1000, left: 2000 });
        assert!(store.has(&blob(1)) && store.has(&code("this", 1)), "needed");
        assert!(!store.has(&code("another", 1)), "no code of another engine is needed by this one");
    }

    #[test]
    fn what_was_just_used_stays_and_what_nobody_used_for_a_week_goes() {
        let store = Store::new();
        store.put(&blob(1), 1000, Duration::from_mins(1));
        store.put(&blob(2), 10, UNUSED + HOUR);
        store.put(&blob(3), 10, HOUR * (7 * 24 - 1));
        store.put(&code("this", 2), 10, UNUSED + HOUR);
        store.put("blobs/sha256/not-ours", 10, UNUSED + HOUR);
        assert_eq!(store.sweep(&[], 1_000_000).files, 3);
        assert!(store.has(&blob(1)) && !store.has(&blob(2)) && store.has(&blob(3)));
        assert_eq!(store.sweep(&[], 100).files, 1, "it is full, and the other one was just used");
        assert!(store.has(&blob(1)) && !store.has(&blob(3)));
    }

    #[test]
    fn what_was_never_finished_goes_and_what_is_being_written_stays() {
        let store = Store::new();
        store.put("tmp/1-2-3", 10, ABANDONED + HOUR);
        store.put("tmp/1-2-4", 10, HOUR);
        store.put("tmp/socket-folder/socket", 10, UNUSED * 2);
        store.sweep(&[], 1_000_000);
        assert!(!store.has("tmp/1-2-3") && store.has("tmp/1-2-4") && store.has("tmp/socket-folder/socket"));
    }

    #[test]
    fn notes_are_counted_and_the_last_used_stay() {
        let store = Store::new();
        for number in 0..NOTES as u64 + 3 {
            store.put(&format!("notes/{}", hex(number)), 1, HOUR * (u32::try_from(number).unwrap() + 1));
        }
        store.sweep(&[], 1);
        let left = fs::read_dir(store.folder.path().join("notes")).unwrap().count();
        assert!(left == NOTES && store.has(&format!("notes/{}", hex(0))) && !store.has(&format!("notes/{}", hex(NOTES as u64))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_there_needed_files_stay_and_no_more_go_than_have_to(
            files in prop::collection::btree_map(0..40_u64, (0..1000_u64, 0..300_u32), 0..20),
            needed in prop::collection::vec(0..40_u64, 0..10),
            room in 0..20_000_u64,
        ) {
            let store = Store::new();
            for (number, (size, hours)) in &files {
                store.put(&blob(*number), *size, HOUR * *hours);
            }
            let total: u64 = files.values().map(|(size, _)| size).sum();
            let swept = store.sweep(&needed, room);
            prop_assert_eq!(swept.bytes + swept.left, total);
            let mut oldest_left = None;
            for (number, (_, hours)) in &files {
                let (here, is_needed) = (store.has(&blob(*number)), needed.contains(number));
                prop_assert!(here || (!is_needed && *hours > 0), "{number} was needed or fresh");
                prop_assert!(!here || is_needed || *hours <= 168, "{number} was not used for a week");
                if here && !is_needed && *hours > 0 {
                    oldest_left = oldest_left.max(Some(*hours));
                }
            }
            if total > share(room, HIGH) && swept.left > share(room, LOW) {
                prop_assert_eq!(oldest_left, None, "there was more to remove");
            }
        }
    }
}
