//! What git 2.39 and `BuildKit` 0.34 print when they fail.

use super::*;

const RUN: &str = r#"#6 [2/2] RUN make
#6 0.165 the rows have no prompt
#6 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 3
------
 > [2/2] RUN make:
0.165 the rows have no prompt
------
Dockerfile:3
--------------------
   1 |     FROM scratch
   2 |     COPY busybox /bin/busybox
   3 | >>> RUN make
   4 |     
--------------------
error: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 3"#;

const SYNTAX: &str = "Dockerfile:2
--------------------
   2 | >>> COPPY busybox /bin/busybox
--------------------
error: failed to solve: dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)";

const BASE: &str = r#"Dockerfile:1
--------------------
   1 | >>> FROM r.test/none:1
--------------------
error: failed to solve: r.test/none:1: failed to resolve source metadata for r.test/none:1: failed to do request: Head "http://r.test/v2/none/manifests/1": dial tcp 127.0.0.1:1: connect: connection refused"#;

const GONE: &str = "Dockerfile:1
--------------------
   1 | >>> FROM r.test/none:1
--------------------
error: failed to solve: r.test/none:1: failed to resolve source metadata for r.test/none:1: r.test/none:1: not found";

fn built(log: &str) -> Failure {
    of_build(log.lines(), "r.test/x:1")
}

#[test]
fn a_line_of_the_dockerfile_is_named_with_the_last_words() {
    let failure = built(RUN);
    assert_eq!((failure.reason, failure.passing), (reason::BUILD_FAILED, false));
    assert!(failure.message.starts_with("Dockerfile:3: RUN make: process"), "{}", failure.message);
    assert!(failure.message.ends_with("0.165 the rows have no prompt"), "{}", failure.message);
    let syntax = built(SYNTAX);
    assert_eq!(syntax.reason, reason::BUILD_FAILED);
    assert!(syntax.message.contains("COPPY busybox /bin/busybox: dockerfile parse error on line 2"), "{}", syntax.message);
}

#[test]
fn a_base_image_that_cannot_be_fetched_now_is_tried_again() {
    assert_eq!((built(BASE).reason, built(BASE).passing), (reason::BUILD_FAILED, true));
    assert_eq!((built(GONE).reason, built(GONE).passing), (reason::BUILD_FAILED, false));
}

#[test]
fn a_push_that_is_denied_and_one_that_meets_nobody_are_told_apart() {
    let denied = "error: failed to solve: failed to push r.test/x:1: push access denied, repository does not exist or may require \
                  authorization: authorization failed: no basic auth credentials";
    assert_eq!((built(denied).reason, built(denied).passing), (reason::PUSH_DENIED, false));
    let nobody = "error: failed to solve: failed to push r.test/x:1: failed to do request: Head \"http://r.test/\": dial tcp: \
                  connect: connection refused";
    assert_eq!((built(nobody).reason, built(nobody).passing), (reason::PUSH_FAILED, true));
}

#[test]
fn a_builder_that_vanished_is_no_fault_of_the_dockerfile() {
    let lost =
        "#5 RUN make\nerror: failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF";
    assert_eq!((built(lost).reason, built(lost).passing), (reason::BUILDER_FAILED, true));
    assert_eq!(built("").reason, reason::BUILDER_FAILED);
}

#[test]
fn what_git_says_is_told_apart() {
    let of = |line: &str| {
        let failure = of_git("fetch main of https://git.test/x", false, std::iter::once(line));
        (failure.reason, failure.passing)
    };
    for (line, expected) in [
        ("fatal: could not read Username for 'https://git.test': terminal prompts disabled", (reason::CLONE_DENIED, false)),
        ("fatal: Authentication failed for 'https://git.test/x/'", (reason::CLONE_DENIED, false)),
        ("git@git.test: Permission denied (publickey).", (reason::CLONE_DENIED, false)),
        ("Host key verification failed.", (reason::CLONE_DENIED, false)),
        ("fatal: couldn't find remote ref refs/heads/none", (reason::REF_NOT_FOUND, false)),
        ("fatal: repository 'https://git.test/x/' not found", (reason::CLONE_FAILED, false)),
        ("fatal: unable to access 'https://git.test/x/': Could not resolve host: git.test", (reason::CLONE_FAILED, true)),
        ("fatal: unable to access 'https://git.test/x/': Failed to connect to git.test port 443", (reason::CLONE_FAILED, true)),
        ("fatal: unable to access 'https://git.test/x/': The requested URL returned error: 502", (reason::CLONE_FAILED, true)),
        ("fatal: write error: No space left on device", (reason::TOO_LARGE, false)),
    ] {
        assert_eq!(of(line), expected, "{line}");
    }
}

#[test]
fn a_daemon_that_does_not_start_says_what_the_pod_lacks() {
    let of = |line: &str| of_daemon(std::iter::once(line)).message;
    assert!(of("[rootlesskit:parent] error: failed to setup UID/GID map: newuidmap failed").contains("SETUID"));
    assert!(of("failed to start the child: fork/exec: unshare: operation not permitted").contains("max_user_namespaces"));
    assert!(of("failed to share mount point: /: permission denied").contains("BUILDER_APPARMOR"));
}

#[test]
fn a_long_log_leaves_room_for_the_beginning() {
    let line = "x".repeat(400);
    let failure = Failure::new(reason::BUILD_FAILED, "first")
        .after(std::iter::repeat_n(line.as_str(), 100).collect::<Vec<_>>().into_iter());
    assert!(failure.message.starts_with("first; ") && failure.message.len() < 1300, "{}", failure.message.len());
}
