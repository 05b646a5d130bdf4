//! Conditions from small functions; transition times change only when the status does. Pure: the time is handed in.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message of a condition, in characters; the API server's own bound is 32 KiB.
const MAX_MESSAGE: usize = 2000;

/// What a condition is about to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    /// Its type.
    pub condition: &'static str,
    /// True, false.
    pub status: bool,
    /// CamelCase cause.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Say {
    /// A condition that holds.
    pub fn yes(condition: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { condition, status: true, reason: reason.to_owned(), message: message.into() }
    }

    /// A condition that does not hold.
    pub fn no(condition: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { condition, status: false, reason: reason.to_owned(), message: message.into() }
    }
}

/// Writes what is said into the list, keeps the others, and keeps the time of those whose status stays.
pub fn set(conditions: &mut Vec<Condition>, say: Say, generation: Option<i64>, now: Timestamp) {
    let status = if say.status { "True" } else { "False" };
    let mut condition = Condition {
        type_: say.condition.to_owned(),
        status: status.to_owned(),
        reason: say.reason,
        message: truncate(say.message),
        observed_generation: generation,
        last_transition_time: Time(whole_second(now)),
    };
    match conditions.iter_mut().find(|known| known.type_ == condition.type_) {
        Some(known) => {
            if known.status == condition.status {
                condition.last_transition_time = known.last_transition_time.clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

/// Kubernetes keeps whole seconds; anything finer would differ from what comes back.
pub fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn truncate(message: String) -> String {
    if message.chars().count() <= MAX_MESSAGE {
        return message;
    }
    let kept: String = message.chars().take(MAX_MESSAGE - 1).collect();
    format!("{kept}…")
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], condition: &str) -> Option<&'a Condition> {
    conditions.iter().find(|known| known.type_ == condition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn time_changes_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, Say::no("Complete", "JobNotComplete", "waiting"), Some(1), at(10));
        set(&mut conditions, Say::no("Complete", "JobFailed", "broken"), Some(1), at(20));
        assert_eq!(conditions[0].last_transition_time.0, at(10));
        set(&mut conditions, Say::yes("Complete", "JobComplete", ""), Some(2), at(30));
        assert_eq!(conditions[0].last_transition_time.0, at(30));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].observed_generation, Some(2));
    }
}
