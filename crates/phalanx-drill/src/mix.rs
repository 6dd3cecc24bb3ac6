//! The ways in which the drill's clients ask, and who of them asks how.

use clap::ValueEnum;
use serde::Serialize;

/// One way of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// A new connection for each request
    New,
    /// One request after the other on one connection
    KeepAlive,
    /// The same with rests between the requests
    Idle,
    /// Four requests at once on one connection
    Pipelined,
    /// A body that comes little by little
    SlowUpload,
    /// A body of 1 MiB at once
    LargeUpload,
    /// A client that reads the response little by little
    SlowReader,
    /// A WebSocket that lives for seconds; needs --ws
    #[value(name = "websocket")]
    #[serde(rename = "websocket")]
    WebSocket,
}

/// Sixteen clients of all ways: the common ways more often.
const TURNS: [Way; 16] = [
    Way::New,
    Way::KeepAlive,
    Way::Idle,
    Way::Pipelined,
    Way::New,
    Way::SlowUpload,
    Way::WebSocket,
    Way::SlowReader,
    Way::LargeUpload,
    Way::Idle,
    Way::KeepAlive,
    Way::Pipelined,
    Way::New,
    Way::Idle,
    Way::KeepAlive,
    Way::New,
];

impl Way {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::KeepAlive => "keep-alive",
            Self::Idle => "idle",
            Self::Pipelined => "pipelined",
            Self::SlowUpload => "slow-upload",
            Self::LargeUpload => "large-upload",
            Self::SlowReader => "slow-reader",
            Self::WebSocket => "websocket",
        }
    }

    /// Whether its requests take no longer than the server makes them: only those are measured.
    pub(super) fn is_measured(self) -> bool {
        match self {
            Self::New | Self::KeepAlive | Self::Idle | Self::Pipelined => true,
            Self::SlowUpload | Self::LargeUpload | Self::SlowReader | Self::WebSocket => false,
        }
    }

    pub(super) fn is_upload(self) -> bool {
        matches!(self, Self::SlowUpload | Self::LargeUpload)
    }
}

/// The way of each client. An empty choice means all ways.
pub(super) fn shared_out(clients: usize, chosen: &[Way], with_websocket: bool) -> Vec<Way> {
    let is_chosen = |way: &Way| {
        (chosen.is_empty() || chosen.contains(way)) && (*way != Way::WebSocket || with_websocket)
    };
    let turns: Vec<Way> = TURNS.into_iter().filter(is_chosen).collect();
    turns.into_iter().cycle().take(clients).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_clients_ask_in_all_ways_and_fewer_in_those_that_were_chosen() {
        let all = shared_out(16, &[], true);
        for way in Way::value_variants() {
            assert!(all.contains(way), "{way:?}");
        }
        assert!(!shared_out(100, &[], false).contains(&Way::WebSocket));
        let two = [Way::Pipelined, Way::New];
        assert_eq!(
            shared_out(3, &two, true),
            [Way::New, Way::Pipelined, Way::New]
        );
    }

    #[test]
    fn a_way_has_one_name_everywhere() {
        for way in Way::value_variants() {
            let value = way.to_possible_value().unwrap();
            assert_eq!(value.get_name(), way.as_str());
            assert_eq!(serde_json::to_value(way).unwrap(), way.as_str());
        }
    }
}
