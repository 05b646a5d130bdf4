//! The same in the stores of Google and Azure: loaded, killed and gone on with, staged, published, copied within the bucket, refused.
//! What the stores share with S3 is tested with S3 alone.

use substratus::worker::report::Outcome;
use substratus_tests::azurite::{ACCOUNT_KEY, Azurite};
use substratus_tests::gcs::Gcs;
use substratus_tests::hub::{Fault as HubFault, Rule as HubRule};
use substratus_tests::proxy::{Fault, Proxy, Rule};
use substratus_tests::seeds;

use super::*;

mod azure;

/// Six parts and a bit.
const SIZE: u64 = 50 * MIB;
/// Seeds of a normal run: what differs from S3 is the protocol, not when it is interrupted.
const FEW: u64 = 2;

/// Every test of these, once in each store.
macro_rules! in_both {
    ($($test:ident),* $(,)?) => {
        mod in_google {
            $(#[test] fn $test() { super::$test(super::Which::Google) })*
        }
        mod in_azure {
            $(#[test] fn $test() { super::$test(super::Which::Azure) })*
        }
    };
}

in_both!(
    a_load_is_whole_and_a_second_one_does_nothing,
    nothing_is_visible_before_it_is_whole_and_a_killed_load_goes_on,
    chaos_a_load_killed_at_any_moment_ends_as_an_undisturbed_one,
    what_is_published_is_staged_again_byte_by_byte,
    chaos_a_publisher_killed_at_any_moment_leaves_nothing_that_counts,
    chaos_a_stage_killed_at_any_moment_goes_on_and_is_whole,
    the_store_copies_what_it_has,
    trouble_that_passes_is_waited_out,
    an_upload_that_the_store_forgot_begins_again,
    credentials_that_are_wrong_and_buckets_that_are_not_there_are_said,
    plain_http_is_for_those_who_say_so,
);

#[derive(Clone, Copy, Debug)]
enum Which {
    Google,
    Azure,
}

enum Cloud {
    Google(Gcs),
    Azure(Azurite),
}

/// A store, a hub and a place for what a process needs.
struct Place {
    cloud: Cloud,
    hub: Hub,
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new(which: Which) -> Self {
        let runtime = runtime();
        let cloud = match which {
            Which::Google => Cloud::Google(Gcs::start(runtime.handle()).unwrap()),
            Which::Azure => Cloud::Azure(Azurite::start(runtime.handle()).unwrap()),
        };
        let hub = hub(SIZE, &runtime);
        Self { cloud, hub, folder: tempfile::tempdir().unwrap(), _runtime: runtime }
    }

    fn proxy(&self) -> &Proxy {
        match &self.cloud {
            Cloud::Google(gcs) => &gcs.proxy,
            Cloud::Azure(azurite) => &azurite.proxy,
        }
    }

    fn url(&self, path: &str) -> String {
        let scheme = match self.cloud {
            Cloud::Google(_) => "gs",
            Cloud::Azure(_) => "az",
        };
        format!("{scheme}://{BUCKET}/{path}")
    }

    fn env(&self) -> BTreeMap<&'static str, String> {
        match &self.cloud {
            Cloud::Google(gcs) => gcs.env().unwrap(),
            Cloud::Azure(azurite) => azurite.env(),
        }
    }

    /// Every object below `prefix`.
    fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        match &self.cloud {
            Cloud::Google(gcs) => {
                let found = gcs.s3.objects(prefix).unwrap().into_iter();
                found.map(|(name, place)| (name, std::fs::read(place).unwrap())).collect()
            }
            Cloud::Azure(azurite) => azurite.objects(prefix).unwrap(),
        }
    }

    /// Uploads that are neither complete nor given up. In Azure there are none.
    fn uploads(&self) -> usize {
        match &self.cloud {
            Cloud::Google(gcs) => gcs.s3.uploads().unwrap(),
            Cloud::Azure(_) => 0,
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(words).args(["-o", "json", "--attempts", "4", "--stall", "2", "--log-filter", "info"]);
        command.arg("--termination-log").arg(self.path("outcome"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(self.env());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn load_to(&self, to: &str) -> Command {
        let mut command = self.command(&["load", "hf://acme/tiny", "--to", to]);
        from_hub(&mut command, &self.hub);
        command
    }

    fn load(&self) -> Command {
        self.load_to(&self.url("some/model"))
    }

    fn publish(&self) -> Command {
        self.command(&["publish", self.written().to_str().unwrap(), "--to", &self.url("some/model")])
    }

    fn stage(&self) -> Command {
        self.command(&["stage", &self.url("some/model"), "--to", self.path("staged").to_str().unwrap()])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder as a training leaves it: one large file, and small ones with names that a URL has to escape.
    fn written(&self) -> PathBuf {
        let folder = self.path("written");
        std::fs::create_dir_all(folder.join("checkpoint 1/deep")).unwrap();
        let noise: Vec<u8> = (0..40 << 20_u32).map(|at: u32| u8::try_from((at * 31 + at / 65_537) % 256).unwrap()).collect();
        std::fs::write(folder.join("model.safetensors"), noise).unwrap();
        std::fs::write(folder.join("empty"), "").unwrap();
        for (number, name) in ["100% ünlike", "a+b", "#1", "x=1&y=2", "%2e%2e"].into_iter().enumerate() {
            std::fs::write(folder.join(format!("checkpoint 1/deep/{name}.json")), format!("{{\"n\":{number}}}")).unwrap();
        }
        folder
    }

    fn has_manifest(&self) -> bool {
        self.objects("some/model/.substratus").contains_key("manifest.json")
    }

    fn assert_published(&self) {
        let objects = self.objects("some/model/artifacts").into_iter();
        let published: BTreeMap<_, _> = objects.map(|(name, bytes)| (name, hex::encode(Sha256::digest(bytes)))).collect();
        assert_eq!(published, sums(&self.path("written")));
        assert!(self.has_manifest());
    }

    fn assert_staged(&self) {
        assert_eq!(sums(&self.path("staged/artifacts")), sums(&self.path("written")));
    }

    /// Every file of the repository with its bytes, the manifest with every file, and nothing else.
    fn assert_whole(&self, prefix: &str) {
        let objects = self.objects(prefix);
        let names: Vec<&str> = objects.keys().map(String::as_str).collect();
        assert_eq!((names, self.uploads()), (WHOLE.to_vec(), 0));
        let manifest: serde_json::Value = serde_json::from_slice(&objects[WHOLE[0]]).unwrap();
        let listed = manifest["files"].as_array().unwrap();
        assert_eq!(listed.len(), objects.len() - 1);
        for file in listed {
            let bytes = &objects[&format!("artifacts/{}", file["path"].as_str().unwrap())];
            assert_eq!(file["sha256"], hex::encode(Sha256::digest(bytes)), "{}", file["path"]);
        }
        assert_eq!(hex::encode(Sha256::digest(&objects[WHOLE[3]])), self.sha256());
    }

    fn sha256(&self) -> String {
        self.hub.sha256(Kind::Model, "acme/tiny", "main", "model.safetensors").unwrap()
    }

    fn fault(&self, method: &'static str, part: &'static str, fault: Fault, times: u32) {
        self.proxy().fault(Rule { method, part, fault, times });
    }
}

fn ended(mut command: Command) -> Loaded {
    Loaded::of(command.output().unwrap())
}

/// Starts it, kills it once `now` says so, and waits for its end.
fn killed(mut command: Command, mut now: impl FnMut() -> bool) {
    let (mut child, started) = (command.spawn().unwrap(), Instant::now());
    while !now() && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_mins(2), "it neither moves nor ends");
        std::thread::sleep(Duration::from_millis(5));
    }
    // It may have ended by itself.
    let _ = child.kill();
    child.wait_with_output().unwrap();
}

fn reused(loaded: &Loaded) -> u64 {
    let Outcome::Complete { reused, .. } = &loaded.outcome else { return u64::MAX };
    *reused
}

fn a_load_is_whole_and_a_second_one_does_nothing(which: Which) {
    let place = Place::new(which);
    ended(place.load()).assert_complete();
    place.assert_whole("some/model");
    let (asked, fetched) = (place.proxy().requests().len(), place.hub.stats().cdn.bytes);
    ended(place.load()).assert_complete();
    let again = place.proxy().requests().split_off(asked);
    assert!(again.iter().all(|request| request.starts_with("GET ")), "{again:?}");
    assert_eq!(place.hub.stats().cdn.bytes, fetched);
}

fn nothing_is_visible_before_it_is_whole_and_a_killed_load_goes_on(which: Which) {
    let place = Place::new(which);
    // The last part alone is slow: the others are sent, and recorded a second later.
    place.hub.fault(HubRule::cdn("model.safetensors", HubFault::BytesPerSecond(MIB / 8)).at(SIZE - 1));
    let mut sent = None;
    killed(place.load(), || {
        let whole = place.hub.stats().cdn.bytes >= 40 * MIB;
        whole && sent.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(4)
    });
    assert!(!place.has_manifest() && !place.objects("some/model/artifacts").contains_key("model.safetensors"));
    place.hub.clear_faults();
    place.hub.reset_stats();
    ended(place.load()).assert_complete();
    place.assert_whole("some/model");
    let again = place.hub.stats().cdn.bytes;
    assert!(again < SIZE, "it began again: {} MiB came", again / MIB);
}

fn chaos_a_load_killed_at_any_moment_ends_as_an_undisturbed_one(which: Which) {
    for seed in seeds::all(FEW).unwrap() {
        let (mut chance, place) = (seed.begin(), Place::new(which));
        for _ in 0..chance.number(1..5) {
            place.hub.clear_faults();
            let slow = HubFault::BytesPerSecond(chance.number(2 * MIB..8 * MIB));
            place.hub.fault(HubRule::cdn("model.safetensors", slow));
            let (begun, far) = (place.hub.stats().cdn.bytes, chance.number(0..SIZE));
            let (started, early, by_bytes) = (Instant::now(), chance.pause(0..1500), chance.number(0..3) > 0);
            killed(
                place.load(),
                || {
                    if by_bytes { place.hub.stats().cdn.bytes - begun >= far } else { started.elapsed() >= early }
                },
            );
            if let Some(bytes) = place.objects("some/model/artifacts").get("model.safetensors") {
                assert_eq!(hex::encode(Sha256::digest(bytes)), place.sha256());
            }
        }
        place.hub.clear_faults();
        ended(place.load()).assert_complete();
        place.assert_whole("some/model");
    }
}

fn what_is_published_is_staged_again_byte_by_byte(which: Which) {
    let place = Place::new(which);
    ended(place.publish()).assert_complete();
    place.assert_published();
    let staged = ended(place.stage());
    staged.assert_complete();
    place.assert_staged();
    for secret in ["Bearer", "sig=", "PRIVATE KEY", ACCOUNT_KEY] {
        assert!(!staged.everything.contains(secret), "{secret} shows: {}", staged.everything);
    }
}

fn chaos_a_publisher_killed_at_any_moment_leaves_nothing_that_counts(which: Which) {
    for seed in seeds::all(FEW).unwrap() {
        let (mut chance, place) = (seed.begin(), Place::new(which));
        for _ in 0..chance.number(1..5) {
            let (started, early) = (Instant::now(), chance.pause(0..900));
            killed(place.publish(), || started.elapsed() >= early);
            if place.has_manifest() {
                place.assert_published();
            }
        }
        ended(place.publish()).assert_complete();
        place.assert_published();
        assert_eq!(place.uploads(), 0);
    }
}

fn chaos_a_stage_killed_at_any_moment_goes_on_and_is_whole(which: Which) {
    for seed in seeds::all(FEW).unwrap() {
        let (mut chance, place) = (seed.begin(), Place::new(which));
        ended(place.publish()).assert_complete();
        for _ in 0..chance.number(1..5) {
            let (started, early) = (Instant::now(), chance.pause(0..400));
            killed(place.stage(), || started.elapsed() >= early);
        }
        ended(place.stage()).assert_complete();
        place.assert_staged();
    }
}

fn the_store_copies_what_it_has(which: Which) {
    let place = Place::new(which);
    ended(place.load()).assert_complete();
    place.hub.reset_stats();
    let mut again = place.load_to(&place.url("second"));
    again.args(["--reuse", &place.url("some/model")]);
    let second = ended(again);
    second.assert_complete();
    assert!(reused(&second) > SIZE && place.hub.stats().cdn.bytes == 0, "{}", second.everything);
    place.assert_whole("second");
    place.assert_whole("some/model");
}

fn trouble_that_passes_is_waited_out(which: Which) {
    let (part, whole, list) = match which {
        Which::Google => (("PUT", "partNumber=2"), ("POST", "uploadId"), "list-type=2"),
        Which::Azure => (("PUT", "comp=block&"), ("PUT", "comp=blocklist"), "comp=list"),
    };
    for fault in [Fault::Answer(503, "ServerBusy"), Fault::Reset, Fault::LostAnswer] {
        let place = Place::new(which);
        place.fault(part.0, part.1, fault, 2);
        place.fault("PUT", "config", fault, 1);
        place.fault("PUT", "manifest", fault, 1);
        place.fault(whole.0, whole.1, fault, 1);
        place.fault("GET", list, fault, 1);
        if matches!(which, Which::Google) {
            place.fault("POST", "uploads", fault, 1);
        }
        place.hub.reset_stats();
        ended(place.load()).assert_complete();
        place.assert_whole("some/model");
        // Also where the answer was lost that said it is complete.
        let fetched = place.hub.stats().cdn.bytes;
        assert!(fetched < SIZE + MIB, "{fault:?}: the file came again, {} MiB", fetched / MIB);
    }
}

fn an_upload_that_the_store_forgot_begins_again(which: Which) {
    let place = Place::new(which);
    match which {
        Which::Google => place.fault("PUT", "partNumber=1", Fault::Answer(404, "NoSuchUpload"), 1),
        Which::Azure => place.fault("PUT", "comp=blocklist", Fault::Answer(400, "InvalidBlockList"), 1),
    }
    ended(place.load()).assert_complete();
    place.assert_whole("some/model");
}

fn credentials_that_are_wrong_and_buckets_that_are_not_there_are_said(which: Which) {
    let place = Place::new(which);
    let (stranger, code) = match &place.cloud {
        Cloud::Google(gcs) => (gcs.env_of_a_stranger().unwrap(), "AuthenticationRequired"),
        Cloud::Azure(_) => (BTreeMap::from([("AZURE_STORAGE_ACCOUNT_KEY", "bm9ib2R5".to_owned())]), "Auth"),
    };
    let mut load = place.load();
    load.envs(stranger);
    let url = place.url("");
    ended(load).assert_failed("NeedsAuth", true, &[code, url.trim_end_matches('/')]);
    let nowhere = place.url("model").replace(BUCKET, "nowhere-at-all");
    ended(place.load_to(&nowhere)).assert_failed("NotFound", true, &["nowhere-at-all", "does not exist", "create it"]);
    assert_eq!(place.hub.stats().cdn.bytes, 0);
}

fn plain_http_is_for_those_who_say_so(which: Which) {
    let place = Place::new(which);
    let variable = match which {
        Which::Google => "GOOGLE_ALLOW_HTTP",
        Which::Azure => "AZURE_ALLOW_HTTP",
    };
    let mut load = place.load();
    load.env_remove(variable);
    ended(load).assert_failed("Invalid", true, &[variable]);
    assert!(place.proxy().requests().is_empty());
}
