//! Objectives: which one holds, and whether it is kept.

use std::time::Duration;

/// What a policy or the cluster promises. None: nothing is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objectives {
    /// How much may be lost, as time.
    pub rpo: Option<Duration>,
    /// How long a recovery may take.
    pub rto: Option<Duration>,
}

impl Objectives {
    /// A policy's own objectives, and the cluster's where it has none.
    #[must_use]
    pub fn or(self, cluster: Self) -> Self {
        Self {
            rpo: self.rpo.or(cluster.rpo),
            rto: self.rto.or(cluster.rto),
        }
    }
}

/// Whether a value keeps an objective: none where either is not known.
pub fn keeps(seconds: Option<f64>, objective: Option<Duration>) -> Option<bool> {
    Some(seconds? <= objective?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_overrides_the_cluster_where_it_says_something() {
        let minutes = |m: u64| Some(Duration::from_secs(60 * m));
        let cluster = Objectives {
            rpo: minutes(5),
            rto: minutes(60),
        };
        let policy = Objectives {
            rpo: minutes(1),
            rto: None,
        };
        assert_eq!(
            policy.or(cluster),
            Objectives {
                rpo: minutes(1),
                rto: minutes(60)
            }
        );
    }

    #[test]
    fn what_is_not_known_keeps_nothing_and_breaks_nothing() {
        assert_eq!(keeps(None, Some(Duration::from_secs(1))), None);
        assert_eq!(keeps(Some(1.0), None), None);
        assert_eq!(keeps(Some(1.0), Some(Duration::from_secs(1))), Some(true));
        assert_eq!(keeps(Some(1.1), Some(Duration::from_secs(1))), Some(false));
    }
}
