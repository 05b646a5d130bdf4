//! Buckets that refuse, and servers that misbehave: what passes is waited out, what does not is said.

use substratus_tests::s3::{Fault, Rule};

use super::*;

const SIZE: u64 = 20 * MIB;

fn rule(method: &'static str, part: &'static str, fault: Fault, times: u32) -> Rule {
    Rule { method, part, fault, times }
}

#[test]
fn trouble_that_passes_is_waited_out() {
    let slow = Fault::Answer(503, "SlowDown");
    let error = Fault::Answer(500, "InternalError");
    for fault in [slow, error, Fault::Reset, Fault::LostAnswer] {
        let bench = Bench::new(SIZE);
        // Parts, single objects, records, and beginning and end of an upload.
        bench.s3.fault(rule("PUT", "partNumber=2", fault, 2));
        bench.s3.fault(rule("PUT", "config.json", fault, 1));
        bench.s3.fault(rule("PUT", "manifest.json", fault, 1));
        // An upload whose beginning was not heard of is another one, which is given up.
        bench.s3.fault(rule("POST", "uploads", fault, 1));
        bench.s3.fault(rule("POST", "uploadId", fault, 1));
        bench.s3.fault(rule("GET", "list-type=2", fault, 1));
        bench.run().assert_complete();
        bench.assert_whole();
    }
}

#[test]
fn a_server_that_stays_broken_is_a_passing_failure() {
    let bench = Bench::new(SIZE);
    bench.s3.fault(rule("PUT", "partNumber", Fault::Answer(503, "SlowDown"), u32::MAX));
    bench.run().assert_failed("Unavailable", false, &["SlowDown", "model.safetensors", BUCKET]);
    assert!(bench.manifest().is_none());
    bench.s3.clear_faults();
    bench.run().assert_complete();
    bench.assert_whole();
}

#[test]
fn an_upload_that_the_server_forgot_begins_again() {
    let bench = Bench::new(SIZE);
    bench.s3.fault(rule("PUT", "partNumber=1", Fault::Answer(404, "NoSuchUpload"), 1));
    bench.run().assert_complete();
    bench.assert_whole();
}

#[test]
fn credentials_that_are_wrong_expired_or_too_small_are_said_before_the_first_byte() {
    let bench = Bench::new(MIB);
    let run = |name: &str, value: &str| Loaded::of(bench.command().env(name, value).output().unwrap());
    run("AWS_SECRET_ACCESS_KEY", "wrong").assert_failed("NeedsAuth", true, &["SignatureDoesNotMatch", "s3://artifacts"]);
    run("AWS_ACCESS_KEY_ID", "nobody").assert_failed("NeedsAuth", true, &["the credentials are wrong", "access key"]);
    for (status, code, words) in
        [(400, "ExpiredToken", "renew"), (403, "AccessDenied", "may not"), (403, "RequestTimeTooSkewed", "clock")]
    {
        bench.s3.fault(rule("GET", "list-type=2", Fault::Answer(status, code), 1));
        bench.run().assert_failed("NeedsAuth", true, &[code, words]);
    }
    assert_eq!(bench.hub.stats().cdn.bytes, 0);
    assert!(!std::fs::read_to_string(bench.folder.path().join("outcome")).unwrap().contains(ACCESS_KEY));
}

#[test]
fn a_bucket_that_is_not_there_and_one_that_is_elsewhere_are_said() {
    let bench = Bench::new(MIB);
    Loaded::of(bench.command_to("s3://nowhere-at-all/model").output().unwrap()).assert_failed(
        "NotFound",
        true,
        &["s3://nowhere-at-all", "does not exist", "create it"],
    );
    bench.s3.fault(rule("GET", "list-type=2", Fault::Answer(301, "PermanentRedirect"), 1));
    bench.run().assert_failed("Invalid", true, &["AWS_REGION"]);
}

#[test]
fn plain_http_is_for_those_who_say_so() {
    let bench = Bench::new(MIB);
    let ended = Loaded::of(bench.command().env_remove("AWS_ALLOW_HTTP").output().unwrap());
    ended.assert_failed("Invalid", true, &["AWS_ALLOW_HTTP"]);
    assert!(bench.s3.requests().is_empty());
}
