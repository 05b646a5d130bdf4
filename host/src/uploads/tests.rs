//! A folder on a disk, and those who send to it.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

struct Place {
    uploads: Arc<Uploads>,
    told: UnboundedReceiver<Trigger>,
    folder: tempfile::TempDir,
}

fn place(room: u64) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let (arrived, told) = unbounded_channel();
    let url = "http://r.test".parse().unwrap();
    Place { uploads: Arc::new(Uploads::open(folder.path(), url, room, arrived, Timestamp::now).unwrap()), told, folder }
}

fn subject(name: &str) -> Subject {
    Subject { kind: "model".to_owned(), namespace: "team".to_owned(), name: name.to_owned() }
}

fn announced(bytes: &[u8]) -> UploadSource {
    UploadSource { md5_checksum: hex::encode(Md5::digest(bytes)), request_id: "r".to_owned(), ..UploadSource::default() }
}

fn ticket(name: &str, upload: &UploadSource) -> Ticket {
    Ticket::of(subject(name), upload, i64::MAX)
}

impl Place {
    fn send(&self, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
        self.send_as(&ticket(name, &announced(bytes)), bytes)
    }

    fn send_as(&self, ticket: &Ticket, bytes: &[u8]) -> Result<(), Refusal> {
        let mut incoming = self.uploads.begin(ticket.clone(), bytes.len() as u64)?;
        for part in bytes.chunks(3) {
            incoming.write(part)?;
        }
        incoming.finish()
    }

    fn has(&self, name: &str, bytes: &[u8]) -> bool {
        self.uploads.has(&subject(name), &announced(bytes).md5_checksum)
    }

    fn on_their_way(&self) -> usize {
        fs::read_dir(self.folder.path().join("tmp")).unwrap().count()
    }
}

#[test]
fn what_was_announced_is_kept_and_the_object_hears_of_it() {
    let mut place = place(1000);
    place.send("m", b"one").unwrap();
    assert_eq!(place.told.try_recv().unwrap(), Trigger::Model("team".to_owned(), "m".to_owned()));
    assert!(place.has("m", b"one") && !place.has("n", b"one"));
    // The same once more, as a client does that heard no answer.
    place.send("m", b"one").unwrap();
    place.send("m", b"two").unwrap();
    assert!(place.has("m", b"two"), "the newest counts");
    assert!(!place.has("m", b"one"), "and what was before it is gone");
    assert_eq!(place.on_their_way(), 0);
    assert!(!place.has("m", b"two"), "asked for something else, the object gave up the newest too");
}

#[test]
fn other_bytes_are_refused_and_leave_nothing() {
    let mut place = place(1000);
    let upload = announced(b"right");
    let of = |upload: &UploadSource| ticket("m", upload);
    let sha256 = UploadSource { sha256_checksum: Some("0".repeat(64)), ..upload.clone() };
    let longer = UploadSource { size_bytes: Some(6), ..upload.clone() };
    for (asked, bytes, words) in [
        (of(&upload), b"wrong".as_slice(), "md5Checksum"),
        (of(&sha256), b"right", "sha256Checksum"),
        (of(&longer), b"right", "sizeBytes"),
    ] {
        let refusal = place.send_as(&asked, bytes).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
        assert_eq!(place.uploads.refusal(&subject("m"), "r"), Some(refusal));
        assert_eq!(place.uploads.refusal(&subject("m"), "another request"), None);
        assert!(place.told.try_recv().is_ok() && !place.has("m", b"right"));
    }
    for (size, parts) in [(4, b"right".as_slice()), (6, b"right")] {
        let mut incoming = place.uploads.begin(of(&upload), size).unwrap();
        let result = incoming.write(parts).and_then(|()| incoming.finish());
        assert!(matches!(result, Err(Refusal::Differs(_))), "{size}: {result:?}");
    }
    drop(place.uploads.begin(of(&upload), 5).unwrap());
    assert_eq!(place.on_their_way(), 0, "what broke off is gone");
}

#[test]
fn there_is_room_for_so_much_and_the_oldest_goes_for_the_newest() {
    let place = place(10);
    for (name, age) in [("old", 20), ("middle", 10)] {
        place.send(name, name.as_bytes()).unwrap();
        let file = place.uploads.open_file(&subject(name), &announced(name.as_bytes()).md5_checksum).unwrap();
        file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
    }
    place.send("new", b"4444").unwrap();
    assert!(!place.has("old", b"old") && place.has("middle", b"middle") && place.has("new", b"4444"));
    let refusal = place.send("huge", &[0; 11]).unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { size: 11, room: 10 }), "{refusal:?}");
    assert!(place.uploads.refusal(&subject("huge"), "r").unwrap().contains("UPLOADS_MIB"));
    let first = place.uploads.begin(ticket("a", &announced(b"")), 6).unwrap();
    assert!(matches!(place.uploads.begin(ticket("b", &announced(b"")), 6), Err(Refusal::Busy)));
    drop(first);
    assert!(place.uploads.begin(ticket("b", &announced(b"")), 6).is_ok(), "room that was not used is room");
}

#[test]
fn what_was_on_its_way_when_an_operator_ended_goes_and_the_rest_stays() {
    let place = place(1000);
    place.send("m", b"one").unwrap();
    fs::write(place.folder.path().join("tmp/half"), "x").unwrap();
    let (arrived, _told) = unbounded_channel();
    let next = Uploads::open(place.folder.path(), "http://r.test".parse().unwrap(), 1000, arrived, Timestamp::now).unwrap();
    assert_eq!(place.on_their_way(), 0);
    assert!(next.has(&subject("m"), &announced(b"one").md5_checksum));
    let url: Url = place.uploads.url(&subject("m"), &announced(b"one"), Timestamp::MAX).parse().unwrap();
    assert_eq!(next.ticket(subject("m"), url.query().unwrap()), Err(NoTicket::Unsigned), "an operator honours its own URLs");
}
