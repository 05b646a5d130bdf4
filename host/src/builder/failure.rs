//! What went wrong, told apart by what git and `BuildKit` say of it: words for the user, a reason, and whether it may pass. Pure.

use substratus_crds::conditions::reason;

/// Longest part of a log in a message, in bytes; a condition has room for 2000 characters.
const MAX_LOG: usize = 1200;
/// Lines of a log in a message.
const MAX_LINES: usize = 15;

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// One of `substratus_crds::conditions::reason`.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) message: String,
    /// Another try may end otherwise.
    pub(super) passing: bool,
}

impl Failure {
    /// Somebody has to change something.
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), passing: false }
    }

    /// It may pass.
    pub(super) fn passing(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), passing: true }
    }

    /// With the last lines of a log.
    pub(super) fn after<'a>(mut self, lines: impl DoubleEndedIterator<Item = &'a str>) -> Self {
        let (mut kept, mut bytes) = (Vec::new(), 0);
        for line in lines.rev().take(MAX_LINES) {
            bytes += line.len() + 1;
            if bytes > MAX_LOG {
                break;
            }
            kept.push(line);
        }
        kept.reverse();
        if !kept.is_empty() {
            self.message.push_str("; the last lines of the log:\n");
            self.message.push_str(&kept.join("\n"));
        }
        self
    }
}

fn says(text: &str, words: &[&str]) -> bool {
    let text = text.to_lowercase();
    words.iter().any(|word| text.contains(word))
}

/// Words of a network or a server that is not well at the moment.
const UNWELL: &[&str] = &[
    "connection refused",
    "failed to connect",
    "connection reset",
    "connection timed out",
    "could not resolve host",
    "could not resolve hostname",
    "no such host",
    "i/o timeout",
    "operation timed out",
    "timeout exceeded",
    "tls handshake timeout",
    "network is unreachable",
    "no route to host",
    "temporary failure in name resolution",
    "early eof",
    "unexpected eof",
    "unexpected disconnect",
    "remote end hung up",
    "operation too slow",
    "returned error: 5",
    "returned error: 429",
    "500 internal",
    "502 bad",
    "503 service",
    "504 gateway",
    "429 too many",
];

/// Words of a registry or a git server that wants another account.
const DENIED: &[&str] = &[
    "authentication failed",
    "authorization failed",
    "could not read username",
    "could not read password",
    "terminal prompts disabled",
    "permission denied (publickey",
    "host key verification failed",
    "returned error: 401",
    "returned error: 403",
    "401 unauthorized",
    "403 forbidden",
    "unauthorized",
    "insufficient_scope",
    "no basic auth credentials",
    "requested access to the resource is denied",
    "denied:",
];

/// Words of a git server that does not have what it was asked for.
const NO_REF: &[&str] = &["couldn't find remote ref", "could not find remote ref", "not our ref", "unadvertised object"];

/// Whether git says that the other side has no such branch, tag or commit.
pub(super) fn is_missing(line: &str) -> bool {
    says(line, NO_REF)
}

/// A `git` that failed at `what`.
pub(super) fn of_git<'a>(what: &str, has_secret: bool, lines: impl DoubleEndedIterator<Item = &'a str> + Clone) -> Failure {
    let told = |words: &[&str]| lines.clone().any(|line| says(line, words));
    let failure = if told(DENIED) {
        let way = if has_secret {
            "the account or key of spec.build.git.secret does not open it"
        } else {
            "name the Secret that opens it as spec.build.git.secret"
        };
        Failure::new(reason::CLONE_DENIED, format!("{what}: access is denied; {way}"))
    } else if told(NO_REF) {
        Failure::new(reason::REF_NOT_FOUND, format!("{what}: the repository has no such branch, tag or commit"))
    } else if told(&["no space left"]) {
        Failure::new(reason::TOO_LARGE, format!("{what}: the node has no room for the repository"))
    } else if told(UNWELL) {
        Failure::passing(reason::CLONE_FAILED, format!("{what}: the repository does not answer"))
    } else {
        Failure::new(reason::CLONE_FAILED, format!("{what}: the repository cannot be fetched"))
    };
    failure.after(lines)
}

/// A build that failed, from what `buildctl` printed.
pub(super) fn of_build<'a>(lines: impl DoubleEndedIterator<Item = &'a str> + Clone, image: &str) -> Failure {
    let error = lines.clone().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or_default();
    let error = error.strip_prefix("failed to solve: ").unwrap_or(error);
    let failure = if says(error, &["no space left"]) {
        Failure::new(reason::TOO_LARGE, format!("the node has no room for the build: {error}"))
    } else if says(error, &["failed to push", "failed to export image", "error writing manifest"]) {
        of_push(error, image)
    } else if says(error, &["failed to read dockerfile"]) {
        Failure::new(reason::NO_DOCKERFILE, error)
    } else if error.is_empty() || says(error, &["error reading from server", "transport is closing", "code = unavailable"]) {
        Failure::passing(reason::BUILDER_FAILED, format!("the builder ended in the middle of the build {error}"))
    } else {
        let place = place(lines.clone()).map(|place| format!("{place}: ")).unwrap_or_default();
        let fetching = says(error, &["failed to resolve source metadata", "failed to do request", "failed to copy"]);
        let passing = fetching && says(error, UNWELL);
        Failure { reason: reason::BUILD_FAILED, message: format!("{place}{error}"), passing }
    };
    // The excerpt of the Dockerfile and the error are in the message already.
    let end = lines.clone().position(|line| line.starts_with("Dockerfile:") || line.starts_with("error: "));
    let end = end.unwrap_or(usize::MAX);
    let log: Vec<&str> = lines.take(end).filter(|line| !line.starts_with("----")).collect();
    failure.after(log.into_iter())
}

fn of_push(error: &str, image: &str) -> Failure {
    if says(error, DENIED) {
        let way = "the account of the Secret that REGISTRY_PUSH_SECRET names, in this namespace, may not push there";
        return Failure::new(reason::PUSH_DENIED, format!("{image} cannot be pushed: {way}: {error}"));
    }
    Failure::passing(reason::PUSH_FAILED, format!("{image} cannot be pushed: {error}"))
}

/// `Dockerfile:3: RUN make`: the line that failed, as `BuildKit` marks it.
fn place<'a>(lines: impl DoubleEndedIterator<Item = &'a str> + Clone) -> Option<String> {
    let at = lines.clone().rev().find(|line| {
        line.strip_prefix("Dockerfile:").is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    })?;
    let marked = lines.rev().find_map(|line| line.split_once("| >>> ").map(|(_, code)| code.trim()));
    Some(marked.map_or_else(|| at.to_owned(), |code| format!("{at}: {code}")))
}

/// A daemon that does not start, and what its pod lacks.
pub(super) fn of_daemon<'a>(lines: impl DoubleEndedIterator<Item = &'a str> + Clone) -> Failure {
    let told = |words: &[&str]| lines.clone().any(|line| says(line, words));
    let way = if told(&["uid/gid map", "newuidmap", "newgidmap"]) {
        "its user namespace cannot be made: the image needs newuidmap and newgidmap with the rights to map, /etc/subuid and \
         /etc/subgid entries for user 1000, and a pod that may have SETUID and SETGID"
    } else if told(&["unshare", "clone", "user namespace", "max_user_namespaces"]) {
        "user namespaces are forbidden: the node must allow them (user.max_user_namespaces), and a seccomp profile must not deny \
         them (setting BUILDER_SECCOMP)"
    } else if told(&["permission denied", "operation not permitted"]) {
        "mounts are forbidden: a seccomp or AppArmor profile of the node denies them (settings BUILDER_SECCOMP and BUILDER_APPARMOR)"
    } else {
        "its own words say why"
    };
    Failure::passing(reason::BUILDER_FAILED, format!("the builder does not start; {way}")).after(lines)
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
